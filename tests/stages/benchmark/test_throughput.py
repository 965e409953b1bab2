"""Shares, bounds and advice from made-up seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.config import Config, flatten, to_dict
from pipeline.stages.benchmark.advice import advise
from pipeline.stages.benchmark.throughput import Phase

STEPS = ("decode", "transform", "flow", "copy", "encoder", "head", "backward", "optimiser", "tracking")
seconds_of_steps = st.dictionaries(st.sampled_from(STEPS), st.floats(1e-6, 10), min_size=1)


def phase(name: Any = "epoch", device: str = "cpu", rate: float = 0.0, waiting: float = 0.0, **seconds: float) -> Phase:
    """One that reaches its bound unless a rate is given."""
    made = Phase(name, seconds, 1.0, waiting, 100, device)
    return Phase(name, seconds, rate or made.bound, waiting, 100, device)


def test_on_one_set_of_cores_the_times_add_up() -> None:
    found = phase(decode=0.03, encoder=0.05, backward=0.12, rate=4.0)
    assert found.bound == pytest.approx(1 / 0.2) and found.efficiency == pytest.approx(0.8)
    assert found.shares == pytest.approx({"decode": 0.15, "encoder": 0.25, "backward": 0.6})
    assert found.bottleneck == "backward" and found.total == pytest.approx(25.0)


def test_a_device_works_beside_the_cores() -> None:
    fed = phase(device="cuda", decode=0.03, transform=0.01, encoder=0.02, backward=0.04)
    assert fed.bound == pytest.approx(1 / 0.06) and fed.bottleneck == "backward"
    hungry = phase(device="cuda", decode=0.05, transform=0.04, encoder=0.02, backward=0.06)
    assert hungry.bound == pytest.approx(1 / 0.09) and hungry.bottleneck == "decode"  # though backward takes longer


def test_threads_that_leave_cores_free_leave_them_to_the_loader() -> None:
    seconds = {"decode": 0.03, "encoder": 0.05, "backward": 0.05}
    half = Phase("epoch", seconds, 8.0, 0.0, 100, "cpu", occupied=0.5)
    assert (
        half.bound == pytest.approx(1 / 0.1) and half.bottleneck == "encoder"
    )  # the model's own threads are the limit
    busy = Phase("epoch", {**seconds, "decode": 0.09}, 8.0, 0.0, 100, "cpu", occupied=0.5)
    assert busy.bound == pytest.approx(1 / 0.14) and busy.bottleneck == "decode"


@given(seconds_of_steps, st.sampled_from(["cpu", "cuda"]))
def test_no_step_is_slower_than_the_bound_and_the_shares_are_whole(seconds: dict[str, float], device: str) -> None:
    found = phase(device=device, **seconds)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.bound <= 1 / max(seconds.values()) * (1 + 1e-9)
    assert found.bound >= 1 / sum(seconds.values()) * (1 - 1e-9)
    assert found.bottleneck in seconds


def changed(**changes: Any) -> Config:
    config = Config()
    for name, value in changes.items():
        section, _, key = name.partition("__")
        config = replace(config, **{section: replace(getattr(config, section), **{key: value})})
    return config


SCRATCH = {"encoder__name": "compact", "encoder__weights": "none", "encoder__frozen": False}
TRAINED = {"encoder__frozen": False}
PLAIN = {"augmentation__brightness": 0.0, "augmentation__saturation": 0.0}
CASES = [
    # a loader that does not feed the model
    ("training.workers", {**TRAINED}, phase(decode=3, encoder=1, rate=0.1, waiting=0.6), 1),
    ("--workers", {}, phase("classification", decode=3, encoder=1, rate=0.1, waiting=0.6), 0),
    # an encoder that is trained
    ("encoder.frozen", TRAINED, phase(decode=3, encoder=1), 4),
    ("encoder.frozen", TRAINED, phase(decode=1, backward=4), 4),
    ("training.precision", {**TRAINED, "training__precision": "fp32"}, phase(device="cuda", decode=1, backward=4), 4),
    ("data.root", SCRATCH, phase(decode=3, backward=1), 4),
    ("augmentation.saturation", SCRATCH, phase(decode=1, transform=3), 4),
    ("video.frames", {**SCRATCH, **PLAIN}, phase(decode=1, transform=3), 4),
    ("video.size", {**SCRATCH, "video__size": 224}, phase(decode=1, backward=3), 4),
    ("video.frames", {**SCRATCH, "video__size": 64}, phase(decode=1, backward=3), 4),
    ("encoder.name", {**SCRATCH, "encoder__name": "resnet18", "video__size": 96}, phase(decode=1, encoder=3), 4),
    ("recurrent.hidden", {**SCRATCH, "training__batch_size": 128}, phase(decode=1, head=3), 4),
    ("training.batch_size", SCRATCH, phase(decode=1, optimiser=3), 4),
    # a frozen encoder
    ("augmentation.views", {}, phase("extraction", decode=3, encoder=1), 4),
    ("video.size", {"augmentation__views": 1}, phase("extraction", decode=1, encoder=3), 4),
    ("flow.size", {"augmentation__views": 1, "video__streams": "flow"}, phase("extraction", decode=1, flow=3), 4),
    (
        "difference.size",
        {"video__streams": "difference", "augmentation__views": 1},
        phase("extraction", decode=1, difference=3),
        4,
    ),
    (
        "video.size",
        {**SCRATCH, "video__streams": "difference", "difference__form": "image"},
        phase(decode=1, difference=3),
        4,
    ),
    ("training.batch_size", {}, phase("stored features", read=1, backward=3), 4),
    ("recurrent.hidden", {"training__batch_size": 64}, phase("stored features", read=1, backward=3), 4),
    ("tracking.uri", {}, phase("stored features", backward=1, tracking=3), 4),
    ("tracking.uri", TRAINED, phase(backward=1, tracking=3), 4),
    ("encoder.grid", {"encoder__grid": 4}, phase("stored features", read=3, backward=1), 4),
    ("video.frames", {}, phase("stored features", read=3, backward=1), 4),
    # classification
    ("--device", {}, phase("classification", decode=1, encoder=3), 4),
    ("video.size", {}, phase("classification", device="cuda", decode=1, encoder=3), 4),
    ("--workers", {}, phase("classification", decode=3, encoder=1), 4),
    ("flow.size", {"video__streams": "flow"}, phase("classification", decode=1, flow=3), 4),
]


NAMES = [f"{case[0]}-{number}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize(("option", "changes", "measured", "workers"), CASES, ids=NAMES)
def test_the_advice_names_the_bottleneck_and_an_option_that_exists(
    option: str, changes: dict[str, Any], measured: Phase, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given = advise([measured], changed(**changes), 4, workers)
    assert given.option == option and given.bottleneck == measured.bottleneck
    assert f"{measured.shares[measured.bottleneck]:.0%} of the work" in given.text
    assert option in given.text and given.text.endswith(".") and given.text.count(". ") == 0
    if option.startswith("--"):
        with pytest.raises(SystemExit):
            main(["classify", "--help"])
        assert option in capsys.readouterr().out
    else:
        assert option in flatten(to_dict(Config()))


def test_the_advice_is_about_the_phase_that_takes_longest() -> None:
    once = Phase("extraction", {"decode": 0.2, "encoder": 0.1}, 3.0, 0.0, 40)
    epochs = Phase("stored features", {"read": 0.001, "backward": 0.003}, 200.0, 0.0, 300)
    assert advise([once, epochs], Config(), 4, 4).phase == "extraction"
    many = Phase("stored features", epochs.seconds, 200.0, 0.0, 30_000)
    assert advise([once, many], Config(), 4, 4).phase == "stored features"


def test_decoding_processes_are_not_asked_for_where_they_would_wait_too() -> None:
    busy = phase(decode=3, encoder=1, rate=0.24, waiting=0.5)
    assert busy.efficiency > 0.85
    assert advise([busy], changed(**TRAINED), 4, 1).option == "encoder.frozen"
