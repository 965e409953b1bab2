"""What a training starts from: fresh weights, or those of a model that was trained before, and what that has seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Config, flatten, to_dict
from pipeline.errors import CheckpointError, ConfigError, DataError, UserError
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.model.start import take_over
from pipeline.stages.ingest import Ingested, clip_names
from pipeline.stages.models import load_model
from pipeline.stages.progress import say
from pipeline.stages.resume import TrainingState
from pipeline.stages.run_folder import differences
from pipeline.stages.scoring import identities

BUILD = ("task", "video.streams", "difference.", "flow.", "encoder.name", "encoder.grid", "encoder.frozen", "recurrent")
"""Options that decide how a model is built."""
SAME = ("encoder.name", "recurrent.kind")
"""Those that mean another model even where all shapes agree."""


@dataclass(frozen=True)
class Origin:
    """The model that a training started from.

    Attributes:
        model: as it was named.
        digest: of its checkpoint.
        train, val: content identities of all clips that it, and the models it started from, learned from and were
            chosen by.
    """

    model: str
    digest: str
    train: list[str]
    val: list[str]


def begin_model(config: Config, data: Ingested, state: TrainingState | None) -> tuple[Classifier, dict[str, Any]]:
    """The model of a training that begins or goes on, and its `Origin` as a dictionary; empty without one.

    One that goes on finds its weights in its folder. An encoder that is frozen must be there before: its features are.

    Raises:
        UserError: see `first_model` and `check_origin`; or the model it started from has changed since.
    """
    begun = state is not None and state.begun
    if begun and config.training.start_from and not (config.encoder.frozen and config.image_streams):
        assert state is not None
        return build_classifier(config, len(data.classes), load=False), state.origin
    model, origin = first_model(config, data.classes)
    if origin is None:
        return model, {}
    if not begun:
        check_origin(origin, data, config.data.allow_leak)
    elif state is not None and state.origin.get("digest") != origin.digest:
        raise CheckpointError(
            f"training.start_from {origin.model} is not the model any more that this training began with; start over "
            "with --fresh"
        )
    return model, asdict(origin)


def first_model(config: Config, classes: list[str]) -> tuple[Classifier, Origin | None]:
    """The model that a training begins with, on the CPU, and where its weights come from; None: nowhere.

    Args:
        config: as the model is to be built.
        classes: in the order of the logits; empty for numbers.

    Raises:
        ConfigError: the model to start from is built differently.
        CheckpointError: it is not there, or damaged.
        TrackingError: the store does not have it.
        WeightsError: the encoder's pretrained weights are missing or do not fit.
    """
    name = config.training.start_from
    if name is None:
        return build_classifier(config, len(classes)), None
    model = build_classifier(config, len(classes), load=False)
    predictor = load_model(name, "cpu", config.tracking)
    options = differences(flatten(predictor.card.config), flatten(to_dict(config)))
    different = [option for option in options if option.startswith(BUILD)]
    try:
        if any(option in SAME for option in different):
            raise ConfigError("it is another kind of model")
        new = take_over(model, predictor.model, classes, predictor.classes)
    except UserError as error:
        how = f"; different are {', '.join(different)}" if different else ""
        raise ConfigError(f"training.start_from {name}: its weights do not fit, {error}{how}") from None
    say(f"starting from {name}" + (f"; it does not know {', '.join(new)}" if new else ""))
    split, before = predictor.card.split, predictor.card.split.get("before", {})
    learned = {part: sorted({*split.get(part, ()), *before.get(part, ())}) for part in ("train", "val")}
    return model, Origin(name, predictor.digest, **learned)


def check_origin(origin: Origin, data: Ingested, allow_leak: bool) -> None:
    """No clip that judges this training may have taught, or chosen, the model that it starts from.

    Its own validation clips may choose again: they were never learned from.

    Raises:
        DataError: one has, and that is not allowed.
    """
    identity, split = identities(data.table), data.table["split"]
    seen = (split.isin(["val", "test"]) & identity.isin(origin.train)) | ((split == "test") & identity.isin(origin.val))
    if not seen.any():
        return
    first = clip_names(data.table[seen])[0]
    found = f"{int(seen.sum())} validation and test clips, such as {first}, were used to train {origin.model}"
    if not allow_leak:
        raise DataError(
            f"{found}, from which this training would start: too good numbers; start from another model, give it the "
            "same split (data.split_seed), or train all the same with --data.allow_leak true"
        )
    say(f"{found}: the numbers will be too good")
