"""When a model of whole clips is to begin anew in a stream: tried on its validation clips, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import DataConfig, EventsConfig
from pipeline.data.catalog import Policy
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.moments import streaming, usual_sampling
from pipeline.data.stream import stream_clips
from pipeline.data.targets import target_at
from pipeline.errors import ConfigError, DataError
from pipeline.model import checkpoint
from pipeline.report.delay import delay_figure, delay_table, delays, passages
from pipeline.report.events import Events
from pipeline.report.tables import write_json
from pipeline.stages.devices import choose_workers
from pipeline.stages.evaluate import select
from pipeline.stages.ingest import clip_files, ingest
from pipeline.stages.predict import Predictor, encode_clip, load_predictor
from pipeline.stages.progress import bar, say
from pipeline.stages.watch.engine import Engine, Inputs, TorchSteps
from pipeline.stages.watch.settings import stored
from pipeline.stages.watch.stepper import Reset, Stepper

ORDERS = 8
"""Streams that are made of the clips, each with all of them in an order of its own, and its first clip cut shorter than
that of the one before: where clips are equally long, a window would else begin with each of them."""

ALONE = "at every clip (known)"


@dataclass(frozen=True)
class _Clip:
    """A validation clip: per moment what the head reads, and the true label."""

    features: list[Inputs]
    truth: NDArray[np.int64]


def tune_watch(
    folder: Path,
    data: DataConfig | None = None,
    rate: float | None = None,
    events: EventsConfig | None = None,
    out: Path | None = None,
    device: str = "auto",
    workers: int = -1,
) -> dict[str, Any]:
    """Choose how a checkpoint's model watches streams, and store it in the checkpoint.

    Its validation clips are joined to streams in which nothing says where one ends and the next begins. Each way to
    begin anew answers to all of them; the one with the most right answers is stored. Test clips are not looked at.

    Args:
        folder: the checkpoint.
        data: where the clips are now; None: where they were in training.
        rate: moments per second; None: as the model samples, or as its training clips were sampled on the whole.
        events: what ends an event, for the policy `event`.
        out: folder for delay.png and tune_watch.json.

    Returns:
        rate, reset, window, clips, and scores by name, see `pipeline.report.delay.delays`.

    Raises:
        ConfigError: a model that cannot be fed moment by moment, or answers with numbers.
        DataError: no validation clip can be read.
    """
    predictor = load_predictor(folder, device)
    if not predictor.model.streamable or predictor.model.numeric:
        what = "answers with numbers" if predictor.model.numeric else "is bidirectional"
        raise ConfigError(f"{folder}: the model {what}; tune_watch is for models of labels that read forward")
    table = _clips(predictor, data)
    training = [file.times for file in clip_files(table["train"], predictor.classes) if file.times is not None]
    usual, length = usual_sampling(training, predictor.plan.video)
    if rate is None and predictor.plan.video.sampling != "rate":
        rate = stored(predictor).get("rate") or usual
    length = int(stored(predictor).get("length") or length)
    plan = streaming(predictor.plan, rate)
    clips = _read(predictor, clip_files(table["val"], predictor.classes), plan, workers)
    scores = _compare(predictor, clips, length, plan.video.fps, events or EventsConfig())
    best = max((name for name in scores if name != ALONE), key=lambda name: scores[name]["accuracy"])
    chosen = dict(candidates(length))[best]
    result: dict[str, Any] = {
        "rate": plan.video.fps,
        "reset": chosen.policy,
        "window": chosen.window or None,
        "clips": len(clips),
    }
    _store(folder, predictor, {**result, "length": length, "accuracy": scores[best]["accuracy"]})
    result |= {"chosen": best, "scores": scores}
    if out is not None:
        delay_figure(scores, plan.video.fps, out / "delay.png")
        write_json(result, out / "tune_watch.json")
    return result


def tune_text(result: Mapping[str, Any]) -> str:
    """For a person."""
    table = delay_table(result["scores"], result["rate"])
    return (
        f"{table}\n\n{result['clips']} validation clips, one after the other in {ORDERS} orders, "
        f"{result['rate']:.3g} moments per second\nstored in the checkpoint: {result['chosen']}"
    )


def candidates(length: int) -> list[tuple[str, Reset]]:
    """What is tried, the simplest first; `length` is that of a training clip in moments."""
    windows = sorted({max(2, round(length * share)) for share in (0.5, 1.0, 2.0)})
    found = [("never", Reset("never"))]
    found += [(f"window of {size} moments", Reset("window", size)) for size in windows]
    return [*found, ("event", Reset("event"))]


def _clips(predictor: Predictor, data: DataConfig | None) -> dict[str, pd.DataFrame]:
    """Readable training and validation clips of the model's own split."""
    whole = checkpoint.config_of(predictor.card)
    config = whole.data if data is None else replace(data, background=data.background or whole.data.background)
    table = ingest(config, split=False, policy=Policy(whole.limits, whole.video.partial), task=whole.task).table
    table = table[table["status"] == "ok"]
    parts = {split: select(table, predictor.card.split, split, True)[0] for split in ("train", "val")}  # type: ignore[arg-type]
    if parts["val"].empty:
        raise DataError(f"{config.root}: none of the model's validation clips is there; say with DATA where they are")
    return parts


def _read(predictor: Predictor, files: Sequence[ClipFile], plan: Plan, workers: int) -> list[_Clip]:
    """The clips as a stream shows them, encoded."""
    found = []
    with bar("reading validation clips", len(files)) as advance:
        for loaded in stream_clips(files, plan, choose_workers(workers)):
            advance(1)
            if loaded.clip is None:
                say(f"left out: {loaded.error}")
                continue
            encoded = encode_clip(predictor.model, loaded.clip, predictor.device)
            truth = np.broadcast_to(
                np.asarray(target_at(files[loaded.index].target, loaded.clip.times)), loaded.clip.length
            )
            moments: list[Inputs] = [{name: x[i] for name, x in encoded.items()} for i in range(loaded.clip.length)]
            found.append(_Clip(moments, truth.astype(np.int64)))
    if not found:
        raise DataError("none of the model's validation clips can be read")
    return found


def _compare(
    predictor: Predictor, clips: Sequence[_Clip], length: int, rate: float, events: EventsConfig
) -> dict[str, dict[str, Any]]:
    """The scores of every way to begin anew, and for comparison of one that is told where the clips begin."""
    orders = _orders(clips)
    truths = [np.concatenate([clip.truth for clip in order]) for order in orders]
    begins = [_begins(order) for order in orders]
    found = [passages(truth, begin) for truth, begin in zip(truths, begins, strict=True)]
    if not any(found):
        raise DataError("no moment of the validation clips has a label")
    streams = [[moment for clip in order for moment in clip.features] for order in orders]
    engine, tried = TorchSteps(predictor), candidates(length)
    scores = {}
    with bar("trying", (len(tried) + 1) * max(map(len, streams))) as advance:
        for name, reset in [*tried, (ALONE, Reset("never"))]:
            known = begins if name == ALONE else None
            ends = None if reset.policy != "event" else [Events(predictor.classes, events) for _ in streams]
            scores[name] = delays(_answers(engine, streams, reset, rate, known, ends, advance), found)
    return scores


def _answers(
    engine: Engine,
    streams: Sequence[Sequence[Inputs]],
    reset: Reset,
    rate: float,
    known: Sequence[NDArray[np.bool_]] | None,
    events: Sequence[Events] | None,
    advance: Callable[[int], None],
) -> list[NDArray[np.int64]]:
    """Per stream the label answered at each moment."""
    stepper, labels = Stepper(engine, len(streams), reset), [[] for _ in streams]  # type: ignore[var-annotated]
    going: list[set[str]] = [set() for _ in streams]
    for place in range(max(map(len, streams))):
        running = {number: stream[place] for number, stream in enumerate(streams) if place < len(stream)}
        for number in running:
            if known is not None and known[number][place]:
                stepper.restart(number)
        answers = stepper.step(running)
        for number, answer in answers.items():
            labels[number].append(int(answer.values.argmax()))
            if events is not None:
                events[number].push(answer.values, place / rate)
                now = {event.label for event in events[number].going_on()}
                if going[number] - now:  # as in `Tracker`
                    stepper.restart(number)
                going[number] = now
        advance(1)
    return [np.array(found, dtype=np.int64) for found in labels]


def _orders(clips: Sequence[_Clip]) -> list[list[_Clip]]:
    """The clips of each stream."""
    rng, orders = np.random.default_rng(0), []
    for number in range(ORDERS):
        first, *others = (clips[i] for i in rng.permutation(len(clips)))
        cut = number * len(first.features) // ORDERS
        orders.append([_Clip(first.features[cut:], first.truth[cut:]), *others])
    return orders


def _begins(order: Sequence[_Clip]) -> NDArray[np.bool_]:
    """(T,), where a clip begins."""
    return np.concatenate([np.arange(len(clip.features)) == 0 for clip in order])


def _store(folder: Path, predictor: Predictor, found: dict[str, Any]) -> None:
    """Into the checkpoint's card; the weights stay what they are."""
    extra = {**predictor.card.extra, "stream": found}
    checkpoint.save(folder, predictor.model.state_dict(), replace(predictor.card, extra=extra))
