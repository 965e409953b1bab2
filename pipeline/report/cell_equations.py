"""The equations of the recurrent family with places for their numbers: what the page of an explanation fills in.

A prime is the step before. `{forget}` stands for a unit's value of that name, `{forget.input}` for a part of the sum
that a gate's nonlinearity sees.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.report.explanation import LayerView

SYMBOLS = {
    "forget": "f", "input": "i", "cell": "g", "output": "o", "reset": "r", "update": "z", "state": "c", "hidden": "h",
    "inner": "m", "new": "n", "normalised": "LN(c)", "read": "a",
}  # fmt: skip
PARTS = {"input": "W x", "hidden": "U h′", "bias": "b", "peephole": "p c"}


@dataclass(frozen=True)
class Equation:
    """One line.

    Attributes:
        key: the value on the left.
        symbol: its name.
        formula: the right side in symbols.
        numbers: the right side with places for numbers.
    """

    key: str
    symbol: str
    formula: str
    numbers: str


AFTER = {
    "lstm": (("state", "f · c′ + i · g", "{forget} × {state_before} + {input} × {cell}"),
             ("hidden", "o · tanh(c)", "{output} × tanh({state})")),
    "projected": (("state", "f · c′ + i · g", "{forget} × {state_before} + {input} × {cell}"),
                  ("inner", "o · tanh(c)", "{output} × tanh({state})")),
    "zoneout": (("new", "f · c′ + i · g", "{forget} × {state_before} + {input} × {cell}"),
                ("state", "ζ · c′ + (1 − ζ) · n", "{zoneout} × {state_before} + (1 − {zoneout}) × {new}"),
                ("inner", "o · tanh(n)", "{output} × tanh({new})"),
                ("hidden", "ζ · h′ + (1 − ζ) · m", "{zoneout} × {hidden_before} + (1 − {zoneout}) × {inner}")),
    "layer_norm": (("state", "f · c′ + i · g", "{forget} × {state_before} + {input} × {cell}"),
                   ("hidden", "o · tanh(LN(c))", "{output} × tanh({normalised})")),
    "slstm": (("state", "(1 − i) · c′ + i · g", "(1 − {input}) × {state_before} + {input} × {cell}"),
              ("hidden", "o · c", "{output} × {state}")),
    "mlstm": (("hidden", "o · a, a what the matrix memory answers", "{output} × {read}"),),
    "gru": (("hidden", "z · h′ + (1 − z) · g", "{update} × {hidden_before} + (1 − {update}) × {cell}"),),
    "minimal": (("hidden", "f · h′ + i · g", "{forget} × {hidden_before} + {input} × {cell}"),),
    "rnn": (),
    "irnn": (),
}  # fmt: skip
"""Per form what follows from the gates: key, formula, numbers."""

GATES = ("forget", "input", "reset", "update", "cell", "output")
SQUASH = {"rnn": "tanh", "irnn": "max(0, ·)"}


def equations(layer: LayerView) -> list[Equation]:
    """What a layer computes at each step, in the order in which it does."""
    lines = [_gate(layer, name) for name in GATES if name in layer.values]
    if layer.form in SQUASH:
        lines.append(_summed("hidden", "h", SQUASH[layer.form], layer))
    lines += [Equation(key, SYMBOLS[key], formula, numbers) for key, formula, numbers in AFTER[layer.form]]
    return lines


def _gate(layer: LayerView, name: str) -> Equation:
    symbol = SYMBOLS[name]
    if layer.kind == "coupled_lstm" and name == "input":
        return Equation(name, symbol, "1 − f", "1 − {forget}")
    if name not in layer.sums:
        formula = "of x and h′" if layer.form not in ("minimal", "mlstm") else "of x alone"
        return Equation(name, symbol, formula, "")
    if name == "cell" and layer.form == "gru":
        return Equation(
            name, symbol, "tanh(W x + b + r · U h′)",
            "tanh({cell.input} + {cell.bias} + {reset} × {cell.hidden})",
        )  # fmt: skip
    return _summed(name, symbol, "tanh" if name == "cell" else "σ", layer)


def _summed(name: str, symbol: str, squash: str, layer: LayerView) -> Equation:
    parts = list(layer.sums[name])
    inside = " + ".join(PARTS[part] for part in parts)
    numbers = " + ".join(f"{{{name}.{part}}}" for part in parts)
    if "·" in squash:
        return Equation(name, symbol, squash.replace("·", inside), squash.replace("·", numbers))
    return Equation(name, symbol, f"{squash}({inside})", f"{squash}({numbers})")
