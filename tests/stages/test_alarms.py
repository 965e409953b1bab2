from __future__ import annotations

from typing import Any

import pytest

from pipeline.stages.alarms import alarms


def layer(first: float | None = 1.0, last: float | None = 1.0, **gates: tuple[float, float]) -> dict[str, Any]:
    """A layer with these ends of its gradient and these shares (closed, open) of its gates."""
    shares = {name: {"mean": 0.5, "closed": closed, "open": opened} for name, (closed, opened) in gates.items()}
    return {"gradient": [first, last], "first": first, "last": last, "gates": shares, "half_life": None}


def look(epoch: int = 1, **layers: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": epoch, "layers": layers, "answers": {}}


def answers(epoch: int, **numbers: Any) -> dict[str, Any]:
    return {"epoch": epoch, "layers": {}, "answers": numbers}


HEALTHY = layer(0.05, 1.0, input=(0.1, 0.1), forget=(0.0, 0.6), output=(0.2, 0.2))


@pytest.mark.parametrize(
    ("kind", "sick", "said"),
    [
        ("vanishing_gradient", layer(1e-4, 1.0), "gradients vanish in layer1: the first of 2 steps gets 1e-04"),
        ("exploding_gradient", layer(1e4, 1.0), "gradients explode in layer1: the first of 2 steps gets 1e+04"),
        ("exploding_gradient", layer(None, 1.0), "gradients explode in layer1"),
        ("saturated_gates", layer(input=(0.5, 0.5)), "input gate of layer1 (100%)"),
        ("saturated_gates", layer(forget=(0.97, 0.0)), "forget gate of layer1 (97%)"),
        ("saturated_gates", layer(output=(0.96, 0.0), reset=(0.0, 0.99)), "reset gate of layer1 (99%)"),
    ],
)
def test_what_is_wrong_twice_in_a_row_is_said(kind: str, sick: dict[str, Any], said: str) -> None:
    healthy, ill = look(layer0=HEALTHY, layer1=HEALTHY), look(layer0=HEALTHY, layer1=sick)
    found = alarms([ill, ill], [ill, ill], 1.0)
    assert found.keys() == {kind} and said in found[kind] and "\n" not in found[kind]
    for looks in ([ill], [healthy, ill], [ill, healthy], [healthy, healthy]):
        assert alarms(looks, looks, 1.0) == {}


@pytest.mark.parametrize(
    "well",
    [
        {**layer(None, None), "gradient": [1.0]},  # clips of one moment
        layer(0.0, 0.0),  # nothing has a target
        layer(0.002, 1.0),
        layer(forget=(0.0, 1.0)),  # remembers all
        layer(update=(0.0, 1.0)),
        layer(forget=(0.0, 0.98), input=(0.98, 0.0)),  # as chrono begins: what remembers takes little in
        {**layer(), "gates": {"input": {"mean": 9.0, "closed": None, "open": None}}},  # exponential
    ],
)
def test_what_is_as_it_should_be_raises_nothing(well: dict[str, Any]) -> None:
    assert alarms([look(layer0=well)] * 2, [look(layer0=well)] * 2, 1.0) == {}


def test_one_class_for_all_is_said_after_the_warm_up() -> None:
    def epoch(number: int, share: float, true_share: float = 0.5) -> dict[str, Any]:
        return answers(number, most="wave", share=share, true_share=true_share)

    found = alarms([], [epoch(2, 0.96), epoch(3, 1.0)], 1.0)
    assert found.keys() == {"one_answer"} and "100% of the validation clips are called 'wave'" in found["one_answer"]
    assert alarms([], [epoch(1, 1.0), epoch(2, 1.0)], 1.0) == {}  # the first is of the warm-up
    assert alarms([], [epoch(2, 0.94), epoch(3, 1.0)], 1.0) == {}
    assert alarms([], [epoch(2, 1.0, 0.97), epoch(3, 1.0, 0.97)], 1.0) == {}  # nearly all clips are of one class
    assert alarms([], [answers(2), answers(3)], 1.0) == {}


def test_one_number_for_all_is_said() -> None:
    found = alarms([], [answers(2, spread=0.04), answers(3, spread=0.0)], 1.0)
    assert found.keys() == {"one_answer"} and "onto one number" in found["one_answer"]
    assert alarms([], [answers(2, spread=0.04), answers(3, spread=0.06)], 1.0) == {}
