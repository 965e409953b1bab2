"""Robustness: the same clips in worse copies, written as files and read as any file is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.clip_file import ClipFile
from pipeline.data.corruptions import CORRUPTIONS, write_corrupted
from pipeline.data.pool import Lost
from pipeline.data.stream import decoding_pool, stream_clips
from pipeline.data.targets import target_at
from pipeline.errors import DataError
from pipeline.report.tracks import Track
from pipeline.report.variants import tally, variant_row
from pipeline.stages.devices import choose_workers
from pipeline.stages.predict import Prediction, Predictor
from pipeline.stages.progress import bar, say
from pipeline.stages.scoring import Scored

CLIPS = 64
"""Most clips that are copied."""
SECONDS = 30.0
"""Longest clip that is copied: without loss, a minute of video is a gigabyte."""
AS_THEY_ARE = "as they are"


def robustness(predictor: Predictor, scored: Scored, workers: int) -> dict[str, Any]:
    """How a model scores on worse copies of the clips of an evaluation.

    Args:
        predictor: the model.
        scored: its answers to the clips as they are.
        workers: processes that write the copies.

    Returns:
        `rows`: of `report.variants.variant_row`, with `kind`, the clips as they are first; `clips`, how many;
        `of`, how many were scored; `too_long`, how many were not considered for it.

    Raises:
        DataError: no clip could be copied.
    """
    chosen, too_long = choose_clips(scored)
    if not chosen:
        raise DataError(f"robustness copies clips of at most {SECONDS:g} s; there is none among {len(scored.files)}")
    tracks = _answer_copies(predictor, scored, chosen, workers)
    kept = [i for i in chosen if i in tracks]
    if not kept:
        raise DataError(f"none of {len(chosen)} clips could be copied; run: video-lstm doctor DATA")
    groups = [scored.groups[i] for i in kept]
    share = not predictor.model.numeric
    plain = tally([scored.tracks[i] for i in kept])
    rows = [variant_row(AS_THEY_ARE, plain, plain, groups, share, kind="control")]
    for number, corruption in enumerate(CORRUPTIONS):
        losses = tally([tracks[i][number] for i in kept])
        rows.append(variant_row(corruption.name, losses, plain, groups, share, kind=corruption.kind))
    return {"rows": rows, "clips": len(kept), "of": len(scored.files), "too_long": too_long, "share": share}


def choose_clips(scored: Scored) -> tuple[list[int], int]:
    """Which clips are copied, by their place, and how many are too long for it.

    Where there are more than `CLIPS`: those whose digests come first, of each label as many as far as there are.
    """
    short = [i for i, file in enumerate(scored.files) if file.duration <= SECONDS]
    by_label: dict[str, list[int]] = {}
    for i in sorted(short, key=lambda i: scored.files[i].digest):
        by_label.setdefault(str(scored.rows["label"].iloc[i]), []).append(i)
    rounds = [part[turn : turn + 1] for turn in range(len(short)) for part in by_label.values()]
    return sorted([i for part in rounds for i in part][:CLIPS]), len(scored.files) - len(short)


def _answer_copies(predictor: Predictor, scored: Scored, chosen: Sequence[int], workers: int) -> dict[int, list[Track]]:
    """Per clip that could be copied, its tracks in the order of `CORRUPTIONS`. A clip's copies are gone before many
    others are made.
    """
    items = [(i, scored.files[i]) for i in chosen]
    count = choose_workers(workers)
    found: dict[int, list[Track]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="video-lstm-") as folder,
        decoding_pool(predictor.plan, count) as pool,
        decoding_pool(predictor.plan, count) as readers,
        bar("robustness", len(items)) as advance,
    ):
        copied = pool.run(partial(write_corrupted, folder), items, ahead=max(1, count))
        for (i, file), paths in zip(items, copied, strict=True):
            advance(1)
            if isinstance(paths, Lost):
                say(f"not copied: {file.path}: {paths.reason}" + (f" ({paths.detail})" if paths.detail else ""))
                continue
            copies = [ClipFile(path) for path in paths]
            clips = stream_clips(copies, predictor.reading(None), count, pool=readers)
            answers = predictor.answers(clips, copies)
            found[i] = [_track(prediction, file, scored.tracks[i]) for prediction in answers]
            for path in paths:
                Path(path).unlink()
    return found


def _track(prediction: Prediction, file: ClipFile, own: Track) -> Track:
    """The model's answer to a copy, beside what is true at the moments it looked at."""
    if prediction.error is not None:
        raise prediction.error
    assert prediction.times is not None
    answer: NDArray[Any] | None = prediction.values
    if prediction.probabilities is not None:
        answer = prediction.probabilities.argmax(axis=-1)
    true = np.atleast_1d(np.asarray(target_at(file.target, prediction.times)))
    return Track(own.path, prediction.times, true, np.atleast_1d(np.asarray(answer)), own.duration)
