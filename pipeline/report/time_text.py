"""What follows from the scores of clips whose order or length was taken from them, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PLAIN, SHUFFLED, REVERSED, FROZEN, POOLING = "as they are", "shuffled", "reversed", "one frame", "pooling"
"""Names of the rows that the rule reads."""
MARGIN = 0.05
"""A loss below this does not matter: in accuracy, or as a share of the error of the clips as they are."""

RULE = (
    f"A row loses where the whole 95% interval of its paired loss lies above 0; it keeps the score where the interval "
    f"ends below {MARGIN}; else it cannot be told. Order is used where shuffled or reversed clips lose, and not used "
    "where both keep the score; several frames are used where one frame loses; a recurrence earns its place where "
    "pooling loses."
)


def verdict(rows: Sequence[dict[str, Any]], share: bool, reference: float, clips: int, recurrent: bool) -> str:
    """What the rows say by `RULE`.

    Args:
        rows: of `variant_row`; those named above are read.
        share: the score is a share of right answers; else a mean absolute error.
        reference: what needs no model: the share of the commonest class, or the error of always answering the mean.
        clips: how many there are.
        recurrent: the model has a recurrence; one without cannot see the order.
    """
    row = {one["name"]: one for one in rows}
    plain = row[PLAIN]
    nearest = plain["score_low"] if share else plain["score_high"]
    if nearest is None or (nearest <= reference if share else nearest >= reference):
        known = "the commonest class" if share else "the mean"
        return (
            f"Nothing can be said about time: the model does not clearly beat always answering {known} "
            f"({_score(plain)} against {reference:.3g})."
        )
    margin = MARGIN if share else MARGIN * plain["score"]
    frame = state(row[FROZEN], margin)
    order, shuffling = _order(row, margin)
    single = f"one frame alone loses {_cost(row[FROZEN])} and has {row[FROZEN]['score']:.3g}"
    single += f" ({'the commonest class' if share else 'always the mean'}: {reference:.3g})"
    several = {"loses": "several frames are used", "keeps": "one frame is enough"}.get(
        frame, f"whether one frame would do cannot be told from {clips} clips"
    )
    if not recurrent:
        return f"Without a recurrence the order cannot be used; {several}: {single}."
    if order == "loses":
        return f"The order of the frames is used: {shuffling}; {several}: {single}.{_pooling(row, margin)}"
    if order == "keeps" and frame == "keeps":
        return f"Time is not used: {shuffling}, and {single}.{_pooling(row, margin)}"
    if order == "keeps":
        return f"The order of the frames is not used: {shuffling}; {several}: {single}.{_pooling(row, margin)}"
    return (
        f"Whether the order of the frames is used cannot be told from {clips} clips: {shuffling}; {several}: {single}."
        + _pooling(row, margin)
    )


def state(row: dict[str, Any], margin: float) -> str:
    """loses, keeps, or open where the interval allows both, or where there is none."""
    if row["cost_low"] is None:
        return "open"
    if row["cost_low"] > 0:
        return "loses"
    return "keeps" if row["cost_high"] < margin else "open"


def _order(row: dict[str, dict[str, Any]], margin: float) -> tuple[str, str]:
    """`state` of the two rows in which only the order differs, and what to say of them: the surer loss."""
    states = {name: state(row[name], margin) for name in (SHUFFLED, REVERSED)}
    if "loses" in states.values():
        surest = max((SHUFFLED, REVERSED), key=lambda name: row[name]["cost_low"])
        return "loses", f"{surest} clips lose {_cost(row[surest])}"
    told = " and ".join(f"{name} {_cost(row[name])}" for name in states)
    return "keeps" if set(states.values()) == {"keeps"} else "open", f"clips lose, {told}"


def _pooling(row: dict[str, dict[str, Any]], margin: float) -> str:
    if POOLING not in row:
        return ""
    found = {
        "loses": "The recurrence earns its place",
        "keeps": "The recurrence earns nothing",
        "open": "Whether the recurrence earns its place cannot be told",
    }[state(row[POOLING], margin)]
    return f" {found}: pooling of the same features loses {_cost(row[POOLING])}."


def _cost(row: dict[str, Any]) -> str:
    if row["cost_low"] is None:
        return f"{row['cost']:.3g}"
    return f"{row['cost']:.3g} [{row['cost_low']:.2g}, {row['cost_high']:.2g}]"


def _score(row: dict[str, Any]) -> str:
    if row["score_low"] is None:
        return f"{row['score']:.3g}"
    return f"{row['score']:.3g} [{row['score_low']:.2g}, {row['score_high']:.2g}]"
