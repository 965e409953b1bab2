"""Parameter groups and rates of staged fine-tuning."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.config import EncoderConfig, TrainingConfig
from pipeline.data.batches import collate
from pipeline.errors import ConfigError
from pipeline.model.classifier import build_classifier
from pipeline.stages.checks import check_encoder
from pipeline.stages.optimise import optimizer_for, rate_factor, set_rates
from pipeline.stages.step import TrainStep


def encoder(**changes: Any) -> EncoderConfig:
    return EncoderConfig(name="compact", weights="none", frozen=False, **changes)


def test_the_defaults_make_the_groups_they_always_made(make_config: Any) -> None:
    config = make_config(training__encoder_learning_rate=1e-4)
    groups = optimizer_for(build_classifier(config, 3), config).param_groups
    assert sorted((group["peak"], group["weight_decay"]) for group in groups) == [
        (1e-4, 0.0), (1e-4, 0.01), (3e-3, 0.0), (3e-3, 0.01),
    ]  # fmt: skip
    assert all(group["starts"] == 0 and group["lr"] == group["peak"] for group in groups)


def test_deeper_blocks_learn_more_slowly_and_fixed_ones_not_at_all(make_config: Any) -> None:
    config = make_config(encoder=encoder(layer_decay=0.5, unfreeze_blocks=3))
    model = build_classifier(config, 3)
    peaks = {id(x): group["peak"] for group in optimizer_for(model, config).param_groups for x in group["params"]}
    names = {name: peaks.get(id(x)) for name, x in model.named_parameters()}
    for layers, peak in (((9, 10), 3e-3), ((6, 7), 1.5e-3), ((3, 4), 0.75e-3), ((0, 1), None)):
        for layer in layers:
            assert names[f"encoders.rgb.trunk.layers.{layer}.weight"] == (peak and pytest.approx(peak))
    assert names["branches.rgb.output.weight"] == 3e-3


def test_an_encoder_that_joins_later_has_its_own_warm_up() -> None:
    groups: list[dict[str, Any]] = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "peak": 1.0, "starts": 0},
        {"params": [torch.nn.Parameter(torch.ones(1))], "peak": 0.1, "starts": 2},
    ]
    optimizer = torch.optim.AdamW(groups)
    settings = TrainingConfig(epochs=6, warmup=1.0)
    for update in range(60):
        factor = set_rates(optimizer, update, 10, settings)
        assert factor == rate_factor(update, 10, 6, 1.0)
        head, joined = (group["lr"] for group in optimizer.param_groups)
        assert head == factor
        joining = 0.0 if update < 20 else min(1.0, (update - 19) / 11)
        assert joined == pytest.approx(0.1 * factor * joining)


def test_the_head_learns_alone_first_and_the_groups_stay(make_config: Any) -> None:
    config = make_config(encoder=encoder(unfreeze_after=2), recurrent__dropout=0.0)
    step = TrainStep(build_classifier(config, 3), config, torch.device("cpu"))
    sizes = [len(group["params"]) for group in step.optimizer.param_groups]
    clips = [{"rgb": torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8).numpy()} for _ in range(4)]
    batch = collate(clips, [0, 1, 2, 1])
    for epoch in range(4):
        before = {name: x.clone() for name, x in step.model.encoders.state_dict().items()}
        head = step.model.branches["rgb"].output.weight.detach().clone()
        step.begin(epoch)
        step.train([batch])
        moved = [name for name, x in step.model.encoders.state_dict().items() if not torch.equal(x, before[name])]
        assert bool(moved) == (epoch >= 2)
        assert not torch.equal(head, step.model.branches["rgb"].output.weight)
        assert [len(group["params"]) for group in step.optimizer.param_groups] == sizes


def test_what_cannot_be_is_said_before_any_decoding(make_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"unfreeze_after is 2, and training ends after 2 epochs"):
        check_encoder(make_config(encoder=encoder(unfreeze_after=2)))
    with pytest.raises(ConfigError, match=r"unfreeze_blocks is 9, but compact has 4"):
        check_encoder(make_config(encoder=encoder(unfreeze_blocks=9)))
    with pytest.raises(ConfigError, match=r"stochastic_depth is for"):
        check_encoder(make_config(encoder=encoder(stochastic_depth=0.2)))
