"""Numbers with a range: the parser refuses what lies outside."""

from __future__ import annotations

from typing import TypeAlias

__all__ = [
    "AreaFraction", "ClosedUnitInterval", "Fraction", "NonNegativeFloat", "NonNegativeInt", "PositiveFloat",
    "PositiveInt",
]  # fmt: skip

MYPY = False  # mypy reads this as true; jsonargparse would take the types of a TYPE_CHECKING block for the real ones
if MYPY:
    AreaFraction: TypeAlias = float
    ClosedUnitInterval: TypeAlias = float
    Fraction: TypeAlias = float
    NonNegativeFloat: TypeAlias = float
    PositiveFloat: TypeAlias = float
    NonNegativeInt: TypeAlias = int
    PositiveInt: TypeAlias = int
else:
    from jsonargparse.typing import (
        ClosedUnitInterval,
        NonNegativeFloat,
        NonNegativeInt,
        PositiveFloat,
        PositiveInt,
        restricted_number_type,
    )

    Fraction = restricted_number_type("Fraction", float, [(">=", 0), ("<", 1)])
    AreaFraction = restricted_number_type("AreaFraction", float, [(">", 0), ("<=", 1)])
