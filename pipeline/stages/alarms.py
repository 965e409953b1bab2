"""What the numbers of `stages/inside.py` warn of, in plain words: rules over plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

VANISHED = 1e-3
"""Share of the last step's gradient that reaches the first, below which it vanished; above 1 / VANISHED it exploded."""
SATURATED = 0.95
"""Share of a gate's values below 0.1 or above 0.9 from which it hardly learns any more: its slope is below 0.09."""
COLLAPSED = 0.95
"""Share of the answers that are one class from which nothing is told apart; numbers: see `NARROW`."""
NARROW = 0.05
"""Deviation of the answers over that of the targets below which all answers are one number."""
KEEPING = ("forget", "update")
"""Gates that are open by intention, to remember (Gers et al. 2000, Tallec and Ollivier 2018)."""
REMEMBERS = 0.8
"""Share of open forget gates from which a layer is made to remember, and its input gate may be shut."""


def alarms(looks: Sequence[Mapping[str, Any]], epochs: Sequence[Mapping[str, Any]], warmup: float) -> dict[str, str]:
    """What is wrong in both of two readings in a row; a single one may be chance.

    Args:
        looks: the last readings that have layers, at most two.
        epochs: the last readings, at most two.
        warmup: epochs at whose end every model may still answer the same.

    Returns:
        Kind (vanishing_gradient, exploding_gradient, saturated_gates, one_answer) to a sentence with the remedy.
    """
    found: dict[str, str | None] = {}
    if len(looks) == 2:
        before, now = (look["layers"] for look in looks)
        both = [(name, before[name], layer) for name, layer in now.items() if name in before]
        found["vanishing_gradient"] = _vanishing(both)
        found["exploding_gradient"] = _exploding(both)
        found["saturated_gates"] = _saturated(both)
    if len(epochs) == 2 and epochs[0]["epoch"] > warmup:
        found["one_answer"] = _one_answer(*(epoch["answers"] for epoch in epochs))
    return {kind: text for kind, text in found.items() if text is not None}


Pairs = Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]
"""Name of a layer, and its numbers in two readings."""


def _vanishing(layers: Pairs) -> str | None:
    for name, *pair in layers:
        if all(_ratio(layer) < VANISHED for layer in pair):
            steps = len(pair[1]["gradient"])
            return (
                f"gradients vanish in {name}: the first of {steps} steps gets {_ratio(pair[1]):.0e} of what the last "
                "gets, so the model learns from the end of a clip alone; try recurrent.initialisation chrono, "
                "recurrent.kind lstm or gru, recurrent.pooling mean, max or attention, or fewer moments"
            )
    return None


def _exploding(layers: Pairs) -> str | None:
    for name, *pair in layers:
        if all(_ratio(layer) > 1 / VANISHED for layer in pair):
            steps = len(pair[1]["gradient"])
            return (
                f"gradients explode in {name}: the first of {steps} steps gets {_ratio(pair[1]):.0e} times what the "
                "last gets; try a lower training.clip_norm or training.learning_rate, or recurrent.kind lstm or gru"
            )
    return None


def _saturated(layers: Pairs) -> str | None:
    stuck = []
    for name, *pair in layers:
        for gate in pair[1]["gates"]:
            shares = [_stuck(gate, layer["gates"]) for layer in pair if gate in layer["gates"]]
            if len(shares) == 2 and min(shares) >= SATURATED:
                stuck.append(f"{gate} gate of {name} ({shares[1]:.0%})")
    if not stuck:
        return None
    return (
        f"gates are stuck at 0 or 1 and hardly learn: {', '.join(stuck)}; "
        "try a lower training.learning_rate, or larger training.weight_decay"
    )


def _one_answer(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    if "share" in now and "share" in before:
        if min(before["share"], now["share"]) >= COLLAPSED > now["true_share"]:
            return (
                f"predictions collapse: {now['share']:.0%} of the validation clips are called '{now['most']}', but no "
                "class is that frequent; try training.balance weights, or another training.learning_rate"
            )
        return None
    spreads = [epoch.get("spread") for epoch in (before, now)]
    if all(spread is not None and spread < NARROW for spread in spreads):
        return (
            f"predictions collapse onto one number: they vary {spreads[1]:.2g} times as much as the targets; "
            "try another training.learning_rate, or inputs that show what is asked for"
        )
    return None


def _ratio(layer: Mapping[str, Any]) -> float:
    """Gradient at the first step over that at the last; infinite where a norm is, 1 where nothing can be compared."""
    if None in layer["gradient"]:
        return math.inf
    first, last = layer["first"], layer["last"]
    return first / last if last and first is not None else 1.0


def _stuck(gate: str, gates: Mapping[str, Mapping[str, Any]]) -> float:
    """Share of a gate's values that are at an end where it should not rest."""
    closed, opened = gates[gate]["closed"], gates[gate]["open"]
    if closed is None:
        return 0.0
    if gate in KEEPING:
        return float(closed)
    if gate == "input" and (gates.get("forget", {}).get("open") or 0.0) > REMEMBERS:  # it takes little in
        return float(opened)
    return float(closed + opened)
