"""What a stream needs to know of its model and is not told: from the checkpoint."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pipeline.config import WatchConfig
from pipeline.errors import ConfigError
from pipeline.model import checkpoint
from pipeline.stages.predict import Predictor
from pipeline.stages.watch.stepper import Reset


def stored(predictor: Predictor) -> dict[str, Any]:
    """What the checkpoint says about streams: rate, length, and what `tune_watch` chose."""
    found = predictor.card.extra.get("stream", {})
    return found if isinstance(found, dict) else {}


def stream_rate(predictor: Predictor, rate: float | None) -> float | None:
    """Moments per second: as asked for, as the model samples, or as its training clips were sampled on the whole.

    Raises:
        ConfigError: an old checkpoint of a model of whole clips does not say it.
    """
    if rate is not None or predictor.plan.video.sampling == "rate":
        return rate
    known = stored(predictor).get("rate")
    if known is None:
        raise ConfigError(
            f"the model reads {predictor.plan.video.frames} moments of a clip, however long, and its checkpoint does "
            "not say how far apart they were: give --rate in moments per second or run video-lstm tune_watch"
        )
    return float(known)


def stream_reset(predictor: Predictor, config: WatchConfig) -> Reset:
    """When the state begins anew, see `WatchConfig.reset`."""
    known = stored(predictor)
    window = max(2, config.window or known.get("window") or known.get("length") or predictor.plan.video.frames)
    policy = config.reset
    if policy == "auto":
        policy = "never" if predictor.model.per_moment else "window"
        policy = known.get("reset", policy)
        if config.window is not None:
            policy = "window"
    return Reset(policy, int(window))


def ignored_labels(predictor: Predictor, asked: Sequence[str]) -> list[str]:
    """Labels that make no events.

    Raises:
        ConfigError: one that the model does not have.
    """
    background = checkpoint.config_of(predictor.card).data.background
    for label in asked:
        if label not in predictor.classes:
            close = difflib.get_close_matches(label, predictor.classes, n=1)
            known = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(predictor.classes) or 'none'}"
            raise ConfigError(f"ignore: the model has no label '{label}'; {known}")
    return [*asked, *([background] if background in predictor.classes else [])]
