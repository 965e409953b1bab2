"""Test-time views: a clip seen at several choices of moments, and mirrored; the mean of the answers is its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.config import AugmentationConfig
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.stream import Request, stream_clips, view_seed
from pipeline.data.turned import exchanged
from pipeline.errors import ConfigError
from pipeline.model import checkpoint
from pipeline.stages.devices import choose_workers
from pipeline.stages.predict import Prediction, Predictor
from pipeline.stages.progress import bar

PLAIN = AugmentationConfig(crop=1.0, flip=0.0, rotate=0.0, brightness=0.0, saturation=0.0)
"""A random view that only draws other moments."""


def check_views(predictor: Predictor, mirror: bool) -> None:
    """Whether the model can be asked for several views.

    Raises:
        ConfigError: it answers at each moment, and views look at other moments; or its training never saw a mirror
            image, so that left and right may mean different things.
    """
    if predictor.model.per_moment:
        raise ConfigError(f"views are for one answer per clip; the task {predictor.task} has one for each moment")
    if mirror and not checkpoint.config_of(predictor.card).augmentation.flip:
        raise ConfigError(
            "this model never saw a mirror image (augmentation.flip 0): left and right may differ in meaning; "
            "leave out --mirror"
        )


def predict_views(
    predictor: Predictor, files: Sequence[ClipFile], workers: int, views: int, mirror: bool
) -> list[Prediction]:
    """One prediction for each file, from several looks at it.

    The first view is the plain one, so one view without its mirror image is what `Predictor.predict` gives. The others
    draw one moment in each part of the clip, as training does (with `video.sampling` rate: another phase and window),
    from the clip's content, so that every model sees the same.

    Args:
        predictor: the model.
        files: the clips.
        workers: decoding processes.
        views: how many choices of moments.
        mirror: see as many mirror images, of further choices of moments.

    Returns:
        The mean of the views' probabilities, or numbers; `frames` counts the moments of all views, `times` are those of
        the first. A view that cannot be read makes the file one that cannot be read.
    """
    plain = [(i, None if view == 0 else _seed(file, view)) for i, file in enumerate(files) for view in range(views)]
    answers = _answers(predictor, files, plain, PLAIN, workers, "scoring")
    if mirror:
        seen = [(i, _seed(file, -1 - view)) for i, file in enumerate(files) for view in range(views)]
        mirrored = _answers(predictor, files, seen, replace(PLAIN, flip=1.0), workers, "scoring mirror images")
        pairs = checkpoint.config_of(predictor.card).augmentation.flip_labels
        order = exchanged(pairs, predictor.classes, "augmentation.flip_labels")
        answers = [[*a, *(_as_unmirrored(look, order) for look in b)] for a, b in zip(answers, mirrored, strict=True)]
    return [_mean(looks) for looks in answers]


def _seed(file: ClipFile, view: int) -> int:
    return view_seed(int(file.digest[:12] or "0", 16), 2 * abs(view) + (view < 0))


def _answers(
    predictor: Predictor,
    files: Sequence[ClipFile],
    requests: Sequence[Request],
    augmentation: AugmentationConfig,
    workers: int,
    title: str,
) -> list[list[Prediction]]:
    """The predictions of each file's views."""
    plan: Plan = replace(predictor.plan, augmentation=augmentation)
    found: list[list[Prediction]] = [[] for _ in files]
    with bar(title, len(requests)) as advance:
        for loaded in stream_clips(files, plan, choose_workers(workers), requests):
            path = files[loaded.index].path
            if loaded.clip is None:
                found[loaded.index].append(Prediction(path, None, loaded.error))
            else:
                answer = predictor.answer(loaded.clip)
                probabilities, values = (None, answer) if predictor.model.numeric else (answer, None)
                clip, duration, note = loaded.clip, loaded.duration, loaded.note
                found[loaded.index].append(
                    Prediction(path, probabilities, None, clip.length, duration, 0.0, note, values, clip.times)
                )
            advance(1)
    return found


def _as_unmirrored(look: Prediction, order: list[int]) -> Prediction:
    """What the answer to a mirror image says of the clip itself: right where it says left."""
    return look if look.probabilities is None else replace(look, probabilities=look.probabilities[order])


def _mean(looks: Sequence[Prediction]) -> Prediction:
    first = next((look for look in looks if look.error is not None), looks[0])
    if first.error is not None:
        return first
    frames = sum(look.frames for look in looks)
    values = [look.values for look in looks if look.values is not None]
    if values:
        return replace(first, values=np.mean(values, axis=0), frames=frames)
    probabilities = [look.probabilities for look in looks if look.probabilities is not None]
    return replace(first, probabilities=np.mean(probabilities, axis=0), frames=frames)
