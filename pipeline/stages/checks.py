"""What can be known to be wrong with a training before hours of decoding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from pipeline.config import Config, DataConfig
from pipeline.data.targets import classes_in
from pipeline.errors import ConfigError, DataError
from pipeline.model.encoder import check_blocks
from pipeline.model.trunk import build_trunk, check_name, check_stochastic_depth
from pipeline.stages.devices import choose_device
from pipeline.stages.ingest import Ingested
from pipeline.stages.progress import say


def check_encoder(config: Config) -> None:
    """An encoder that exists, and that learned or may learn."""
    check_name(config.encoder.name)
    if config.training.compile and (config.encoder.frozen or not config.image_streams):
        raise ConfigError("training.compile is for an encoder that learns; set encoder.frozen false, or leave it out")
    if not config.image_streams:
        return
    if config.encoder.frozen and config.encoder.weights == "none" and config.training.start_from is None:
        raise ConfigError("a frozen encoder without weights never learns; set encoder.weights, or encoder.frozen false")
    if config.encoder.unfreeze_after >= config.training.epochs:
        raise ConfigError(
            f"encoder.unfreeze_after is {config.encoder.unfreeze_after}, and training ends after "
            f"{config.training.epochs} epochs: the encoder never learns; set encoder.frozen true, which is quicker"
        )
    if config.encoder.stochastic_depth:
        check_stochastic_depth(config.encoder.name)
    if config.encoder.unfreeze_blocks:
        check_blocks(build_trunk(config.encoder.name)[0], config.encoder)
    if config.training.compile:
        check_compiler(choose_device(config.training.device))


def check_compiler(device: torch.device) -> None:
    """Compile a sum, which finds out what no version number tells: whether there is a compiler, and one that works."""
    try:
        torch.compile(_sum)(torch.zeros(8, device=device))
    except Exception as error:  # PyTorch has many for this, none of them documented
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"training.compile finds no compiler that works here ({reason.strip()[:120]}); install one (apt install "
            "g++; on a GPU also Triton), or leave it out"
        ) from None


def _sum(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).sum()


def check_task(config: Config) -> None:
    """Options that have no meaning where a clip has no class."""
    settings, task = config.training, config.task
    if settings.balance == "sampler" and task != "label":
        raise ConfigError(
            f"training.balance sampler draws clips by their class, and with task {task} a clip has none"
            + ("; balance weights weighs moments by theirs" if task == "frame_label" else "; set it to none")
        )
    for option in ("mixup", "cutmix"):
        if getattr(settings, option) and task != "label":
            raise ConfigError(
                f"training.{option} mixes clips that have a class each; with task {task} they have none: leave it out"
            )
    for option in ("flip_labels", "reverse"):
        if getattr(config.augmentation, option) and task != "label":
            raise ConfigError(
                f"augmentation.{option} changes what class a clip has; with task {task} it has none: leave it out"
            )
    for option in ("balance", "label_smoothing", "logit_adjustment"):
        if config.numeric and getattr(settings, option) not in ("none", 0.0):
            raise ConfigError(f"training.{option} is about classes, and task {task} has none; leave it out")


def check_data(data: Ingested, settings: DataConfig) -> None:
    """Classes to tell apart, clips in each split, and no clip on both sides of a split. With `data.test` 0 there need
    be no test: that is a last training on all clips.
    """
    if len(data.classes) == 1:
        raise DataError(f"only one class, '{data.classes[0]}': there is nothing to tell apart")
    untested = settings.test == 0 and not (data.table["split"] == "test").any()
    for split in ("train",) if untested else ("train", "test"):
        if not data.files(split):
            raise DataError(f"no readable clip in the {split} split; see data.{split} and video-lstm doctor DATA")
    if data.leaks and not settings.allow_leak:
        raise DataError(
            f"{len(data.leaks)} pairs of near-duplicates lie in different splits, such as {data.leaks[0].path} and "
            f"{data.leaks[0].other}; give both one group in a list (column group), remove one, or train all the same "
            "with --data.allow_leak true"
        )
    learned = {number for file in data.files("train") for number in classes_in(file.target)}
    missing = [name for number, name in enumerate(data.classes) if number not in learned]
    if missing:
        say(f"no training clip for: {', '.join(missing)}; the model cannot learn what it never sees")


def with_gap(config: Config, data: Ingested) -> Config:
    """Chrono initialisation expects gaps as long as the longest training clip, in moments, unless told otherwise."""
    recurrent = config.recurrent
    if recurrent.initialisation != "chrono" or recurrent.chrono_steps:
        return config
    table = data.table[(data.table["split"] == "train") & (data.table["status"] == "ok")]
    steps = table["frames"].astype(int)
    if config.video.sampling == "rate":
        steps = np.minimum(steps, np.ceil(table["duration"] * config.video.fps).astype(int))
    longest = max(1, min(config.video.frames, int(steps.max())))
    say(f"chrono initialisation for gaps of up to {longest} steps, the longest training clip")
    return replace(config, recurrent=replace(recurrent, chrono_steps=longest))
