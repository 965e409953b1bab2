"""Is time used? The same clips with their moments in other orders, or fewer of them, beside pooling of their features.

A moment keeps what it had: its frame, its difference, its flow. So what is lost is what the model made of the order and
of the number of the moments, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.stream import stream_clips
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.report.time_text import FROZEN, PLAIN, POOLING, REVERSED, SHUFFLED, verdict
from pipeline.report.tracks import Track
from pipeline.report.variants import tally, variant_row
from pipeline.stages.devices import choose_workers
from pipeline.stages.pooling_baseline import train_pooling
from pipeline.stages.predict import Predictor, encode_clip, shuffled_order
from pipeline.stages.progress import bar, say
from pipeline.stages.scoring import Scored

Order = NDArray[np.int64]
Features = dict[str, NDArray[np.float32]]

VARIANTS: dict[str, Callable[[int, str], Order]] = {
    PLAIN: lambda t, _: np.arange(t),
    SHUFFLED: lambda t, digest: shuffled_order(t, digest),
    REVERSED: lambda t, _: np.arange(t)[::-1],
    FROZEN: lambda t, _: np.full(t, t // 2),
    "first half": lambda t, _: np.arange((t + 1) // 2),
    "last half": lambda t, _: np.arange(t // 2, t),
    "every second": lambda t, _: np.arange(0, t, 2),
}
"""Name -> from the number of moments T and the clip's digest to the moments that are shown, in the order shown. The
middle one, shown T times, stands for one frame."""


def time_use(predictor: Predictor, scored: Scored, workers: int) -> dict[str, Any]:
    """How a model scores on clips whose order, or whose length, was taken from them.

    Args:
        predictor: the model.
        scored: its answers to the clips as they are.
        workers: decoding processes.

    Returns:
        `rows`: of `report.variants.variant_row`, each way of showing the clips, and pooling trained on the same
        features; `verdict`, one sentence; `clips`; `pooling`, which pooling that is, or why there is none.
    """
    baseline, told = _baseline(predictor, workers)
    tracks = _answer_all(predictor, baseline, scored, workers)
    kept = [i for i, track in enumerate(tracks[PLAIN]) if track is not None]
    groups = [scored.groups[i] for i in kept]
    losses = {name: tally([track for track in found if track is not None]) for name, found in tracks.items()}
    share = not predictor.model.numeric
    rows = [variant_row(name, loss, losses[PLAIN], groups, share) for name, loss in losses.items()]
    recurrent = checkpoint.config_of(predictor.card).recurrent.kind != "none"
    reference = scored.metrics["majority"]["rate"] if share else scored.metrics["baseline"]["mae"]
    return {
        "rows": rows,
        "verdict": verdict(rows, share, reference, len(kept), recurrent),
        "clips": len(kept),
        "share": share,
        "reference": reference,
        "pooling": told,
    }


def _baseline(predictor: Predictor, workers: int) -> tuple[Predictor | None, str]:
    """Pooling on the model's features, and which it is; or None, and why."""
    config = checkpoint.config_of(predictor.card)
    if config.recurrent.kind == "none":
        return None, "the model itself has no recurrence"
    if predictor.model.per_moment:
        return None, "a task with an answer for each moment has no pooling"
    try:
        baseline = train_pooling(predictor, choose_workers(workers))
    except UserError as error:
        say(f"no pooling beside it: {error}")
        return None, f"not trained: {error}"
    pooling = checkpoint.config_of(baseline.card).recurrent.pooling
    return baseline, f"{pooling} over the moments and a linear layer, trained on the features of this very checkpoint"


def _answer_all(
    predictor: Predictor, baseline: Predictor | None, scored: Scored, workers: int
) -> dict[str, list[Track | None]]:
    """Per way of showing them a track of each clip; None where it cannot be read any more."""
    names = [*VARIANTS, *([POOLING] if baseline else [])]
    tracks: dict[str, list[Track | None]] = {name: [] for name in names}
    with bar("is time used?", len(scored.files)) as advance:
        for loaded in stream_clips(scored.files, predictor.plan, choose_workers(workers)):
            advance(1)
            own, file = scored.tracks[loaded.index], scored.files[loaded.index]
            if loaded.clip is None:
                for found in tracks.values():
                    found.append(None)
                continue
            features = encode_clip(predictor.model, loaded.clip, predictor.device)
            for name, order_of in VARIANTS.items():
                order = order_of(loaded.clip.length, file.digest)
                tracks[name].append(_shown(predictor, features, order, own, name == FROZEN))
            if baseline is not None:
                tracks[POOLING].append(_shown(baseline, features, np.arange(loaded.clip.length), own, False))
    return tracks


def _shown(predictor: Predictor, features: Features, order: Order, own: Track, frozen: bool) -> Track:
    """What the model says of these moments in this order.

    With an answer for each moment, one frame is each moment alone: the model has seen nothing before it.
    """
    if not predictor.model.per_moment:
        answer = _told(predictor, features, order)
        return Track(own.path, own.times, own.true, answer, own.duration)
    if frozen:
        alone = [_told(predictor, features, np.array([moment])) for moment in range(len(own.times))]
        return Track(own.path, own.times, own.true, np.concatenate(alone), own.duration)
    answer = _told(predictor, features, order)
    return Track(own.path, own.times[order], own.true[order], answer, own.duration)


def _told(predictor: Predictor, features: Features, order: Order) -> NDArray[Any]:
    """The class or the number of a clip (1,), or of each moment shown (T,)."""
    answer = predictor.from_features({name: np.ascontiguousarray(x[order]) for name, x in features.items()})
    return np.atleast_1d(answer if predictor.model.numeric else answer.argmax(axis=-1))
