"""One clip's explanation: the question put to the model, and everything that is measured about its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.batches import collate
from pipeline.data.shown import ShownClip
from pipeline.model.branch import Branch
from pipeline.model.heat import heat_maps
from pipeline.model.importance import (
    Score,
    class_score,
    feature_maps,
    integrated_gradients,
    mean_gradients,
    number_score,
    occlusion,
    over_moments,
    pooled,
    pooling_weights,
    running_outputs,
)
from pipeline.model.trace import Trace, half_lives, traces
from pipeline.report.explanation import Explanation, LayerView, StreamView
from pipeline.report.segments import timed_segments
from pipeline.stages.predict import Predictor

WINDOW = 8
"""Moments are hidden in runs of an eighth of the clip."""


@dataclass(frozen=True)
class Question:
    """What is to be explained: a class (None: the model's answer) at a moment in seconds (None: see `explain`)."""

    label: int | None = None
    moment: float | None = None


@dataclass(frozen=True)
class Target:
    """The number that is explained.

    Attributes:
        score: from the model's output to it.
        label: number of the class; -1 where it is a number.
        answer, explained: the model's answer and this number, in words.
    """

    score: Score
    label: int
    answer: str
    explained: str


def explain_clip(predictor: Predictor, shown: ShownClip, question: Question) -> Explanation:
    """Explain one clip that was read."""
    clip, model = shown.clip, predictor.model
    assert clip is not None and shown.frames is not None and shown.frame_times is not None and shown.at is not None
    batch = collate([clip.inputs], [-1]).to(predictor.device)
    features = pooled(model, feature_maps(model, batch.inputs))
    running = running_outputs(model, features).double()
    running = running if model.numeric else torch.softmax(running / predictor.temperature, -1)
    target = choose_target(predictor, running.numpy(), clip.times, shown.duration, question)
    with torch.no_grad():
        score = float(target.score(model.head(features, batch.lengths)))
    gradients = mean_gradients(model, features, target.score)
    moments, missing = integrated_gradients(model, features, gradients, target.score)
    heat = heat_maps(model, batch.inputs, gradients)
    width = max(1, round(clip.length / WINDOW))
    return Explanation(
        path=shown.path,
        task=predictor.task,
        answer=target.answer,
        explained=target.explained,
        score=score,
        classes=predictor.classes,
        running=running.numpy(),
        target=target.label,
        times=clip.times,
        duration=shown.duration,
        occlusion=occlusion(model, features, target.score, width).numpy(),
        streams=[_stream(predictor, name, features[name], heat[name], moments[name]) for name in model.streams],
        layers=_layers(predictor, features, clip.times, target.score),
        frames=shown.frames,
        frame_times=shown.frame_times,
        at=shown.at,
        fit=predictor.plan.video.fit,
        incompleteness=missing,
        note=shown.note,
        model=predictor.digest,
    )


def choose_target(
    predictor: Predictor, running: NDArray[np.float64], times: NDArray[np.float64], duration: float, question: Question
) -> Target:
    """What is explained of a clip, from the model's answers (T, K) to it."""
    if not predictor.model.numeric:
        if predictor.model.per_moment:
            return _segment(predictor, running, times, duration, question)
        best = int(running[-1].argmax())
        label = best if question.label is None else question.label
        name = predictor.classes[label]
        answer = f"{predictor.classes[best]} {running[-1, best]:.2f}"
        return Target(class_score(label, predictor.temperature), label, answer, f"log-odds of {name}")
    if not predictor.model.per_moment:
        return Target(number_score, -1, f"{running[-1, 0]:.4g}", "the number")
    at = len(times) - 1 if question.moment is None else _nearest(times, question.moment)
    score = over_moments(number_score, slice(at, at + 1))
    return Target(score, -1, f"{running[at, 0]:.4g} at {times[at]:.2f} s", f"the number at {times[at]:.2f} s")


def _segment(
    predictor: Predictor, running: NDArray[np.float64], times: NDArray[np.float64], duration: float, question: Question
) -> Target:
    """A label at a moment, or that of the longest segment (of a label, if one is asked for)."""
    classes = predictor.classes
    best = running.argmax(1)
    if question.moment is not None:
        at = _nearest(times, question.moment)
        label = int(best[at]) if question.label is None else question.label
        score = over_moments(class_score(label, predictor.temperature), slice(at, at + 1))
        answer = f"{classes[int(best[at])]} {running[at].max():.2f} at {times[at]:.2f} s"
        return Target(score, label, answer, f"log-odds of {classes[label]} at {times[at]:.2f} s")
    segments = timed_segments(best, times, duration)
    wanted = [s for s in segments if question.label in (None, s[0])]
    whole = (question.label or 0, 0.0, max(duration, float(times[-1])), slice(0, len(times)))
    label, start, end, moments = max(wanted, key=lambda s: (s[2] - s[1], -s[1])) if wanted else whole
    longest = max(segments, key=lambda s: (s[2] - s[1], -s[1]))
    probability = running[longest[3], longest[0]].mean()
    answer = f"{classes[longest[0]]} {probability:.2f} from {longest[1]:.2f} to {longest[2]:.2f} s"
    span = f"{start:.2f} to {end:.2f} s"
    return Target(
        over_moments(class_score(label, predictor.temperature), moments),
        label,
        answer,
        f"log-odds of {classes[label]}, {span}",
    )


def _nearest(times: NDArray[np.float64], moment: float) -> int:
    return int(np.abs(times - moment).argmin())


def _stream(predictor: Predictor, name: str, features: Tensor, heat: Tensor, moments: Tensor) -> StreamView:
    branch = cast(Branch, predictor.model.branches[name])
    weights = pooling_weights(branch, features)
    kind = branch.pooling.kind if branch.pooling is not None and weights is not None else ""
    return StreamView(name, heat.numpy(), moments.numpy(), None if weights is None else weights.numpy(), kind)


def _layers(
    predictor: Predictor, features: dict[str, Tensor], times: NDArray[np.float64], score: Score
) -> list[LayerView]:
    """Every recurrent layer of every stream, the lowest first."""
    model = predictor.model
    with torch.no_grad():
        outputs = model.branch_logits(features, torch.tensor([len(times)]))
    spacing = float(np.diff(times).mean()) if len(times) > 1 else None
    views = []
    for name in model.streams:
        branch = cast(Branch, model.branches[name])
        prefix = f"{name}/" if len(model.streams) > 1 else ""

        def objective(output: Tensor, name: str = name) -> Tensor:
            return score(model.combine(outputs | {name: output})).sum()

        for layer, trace in traces(branch, features[name], objective).items():
            views.append(_view(f"{prefix}{layer}", branch.recurrent.kind, trace, spacing))
    return views


def _view(name: str, kind: str, trace: Trace, spacing: float | None) -> LayerView:
    kept = trace.kept
    return LayerView(
        name,
        kind,
        trace.form,
        {key: value.numpy() for key, value in trace.values.items()},
        {gate: {part: x.numpy() for part, x in parts.items()} for gate, parts in trace.sums.items()},
        None if kept is None or spacing is None else half_lives(kept, spacing).numpy(),
        None if trace.influence is None else trace.influence.numpy(),
        trace.zoneout,
    )
