"""Register: a model as a version in MLflow's registry, and the gate before an alias such as champion."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import TrackingConfig
from pipeline.errors import DataError
from pipeline.model import checkpoint
from pipeline.report.comparison import gap_text, sentence, write_comparison
from pipeline.report.tasks import TITLES
from pipeline.stages.compare import compare
from pipeline.stages.models import checkpoint_folder, load_model
from pipeline.stages.progress import say
from pipeline.stages.serve.folder import built, facts_of
from pipeline.tracking.download import Found
from pipeline.tracking.registry import holder, known_model, model_tags, promote, register_folder

GRANTED = ("first", "same", "better", "forced")
"""Decisions that give the alias; the others are `not better` and `undecided`."""


def register_model(
    model: str,
    name: str,
    alias: str | None = None,
    data: str | None = None,
    force: bool = False,
    tracking: TrackingConfig | None = None,
    device: str = "auto",
    workers: int = -1,
    tags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a model a version of a registered model; an alias that another version has must be won from it.

    The model gets the alias where it is better than the present holder on clips that neither learned from (`compare`,
    with both of its tests), or by `force`; where nobody has the alias yet, it gets it. What the comparison came to is
    in the version's tags, and all of it among the artifacts of the model.

    Args:
        model: MODEL of the command line.
        name: of the registered model.
        alias: such as champion; None: none is asked for.
        data: clips to compare on; None: the data that `model` was trained on.
        force: give the alias whatever the comparison says, or where there can be none.
        tracking: where the store is.
        device, workers: for the comparison.
        tags: more tags of the version.

    Returns:
        `model` (`models:/NAME/VERSION`), `name`, `version`, `model_id`, `alias`, `has_alias`, `decision` (first, same,
        better, forced, not better, undecided; None without an alias), `against` (the former holder, or None) and
        `comparison` (of `compare`, or None).

    Raises:
        DataError: the comparison cannot be made; nothing is registered then.
        CheckpointError: `model` is not there, or damaged.
        TrackingError: the store refuses the name or the alias, or does not answer.
    """
    config = tracking or TrackingConfig()
    with checkpoint_folder(model, config) as folder:
        facts = facts_of(folder)
        run_id, model_id = known_model(config, model, checkpoint.read_card(folder).extra.get("run_id"))
        if model_id and model_tags(config, model_id).get("model.digest") != facts["model.digest"]:
            model_id = None  # the folder is not what its run recorded any more
        former = holder(config, name, alias) if alias else None
        decision, found = None, None
        if alias:
            decision, found = _judged(model, name, former, model_id, data, force, config, device, workers)
        with built(folder) as served:
            known = {**facts, **(tags or {})}
            version, model_id = register_folder(config, name, served, run_id, model_id, known)
    against = None if former is None else f"models:/{name}/{former.version}"
    if alias:
        _note(config, name, version, alias, decision, against, found)
    return {
        "model": f"models:/{name}/{version}",
        "name": name,
        "version": version,
        "model_id": model_id,
        "alias": alias,
        "has_alias": decision in GRANTED,
        "decision": decision,
        "against": against,
        "comparison": found,
    }


def _judged(
    model: str,
    name: str,
    former: Found | None,
    model_id: str | None,
    data: str | None,
    force: bool,
    config: TrackingConfig,
    device: str,
    workers: int,
) -> tuple[str, dict[str, Any] | None]:
    """The decision of the gate and the comparison behind it, if there was one."""
    if former is None:
        return "first", None
    if model_id is not None and former.model_id == model_id:
        return "same", None
    address = f"models:/{name}/{former.version}"
    say(f"{address} has the alias; comparing with it")
    try:
        new, old = (load_model(place, device, config) for place in (model, address))
        found = compare(new, old, data, (model, address), workers, config.uri)
    except DataError as error:
        if not force:
            raise DataError(f"{error}; --force gives the alias without a comparison") from error
        say(f"no comparison: {error}")
        return "forced", None
    if found["better"] == "a":
        return "better", found
    return ("forced" if force else "undecided" if found["better"] == "undecided" else "not better"), found


def _note(
    config: TrackingConfig,
    name: str,
    version: str,
    alias: str,
    decision: str | None,
    against: str | None,
    found: dict[str, Any] | None,
) -> None:
    """Tags, the comparison's files, and the alias if it was won."""
    tags: dict[str, Any] = {f"gate.{alias}": decision}
    if against is not None:
        tags["gate.against"] = against
    if found is not None:
        tags |= {
            "gate.clips": found["n"],
            "gate.left_out": sum(found["left_out"].values()),
            "gate.difference": f"{TITLES[found['score']]} {gap_text(found)}",
        }
    given = alias if decision in GRANTED else None
    if found is None:
        promote(config, name, version, given, tags, None)
        return
    with tempfile.TemporaryDirectory() as place:
        write_comparison(found, Path(place))
        promote(config, name, version, given, tags, Path(place))


def registered_text(result: dict[str, Any]) -> str:
    """What became of the model, for a person."""
    lines = [f"registered  {result['model']}"]
    if result["alias"] is None:
        return lines[0]
    alias, against, found = result["alias"], result["against"], result["comparison"]
    if found is not None:
        lines.append(f"comparison  {sentence(found)}")
    why = {
        "first": "nobody had it before",
        "same": "it had it already",
        "better": f"it is better than {against}",
        "forced": f"taken from {against} by --force",
        "not better": f"stays with {against}, which is better; --force moves it all the same",
        "undecided": f"stays with {against}: not better beyond chance; --force moves it all the same",
    }[result["decision"]]
    return "\n".join([*lines, f"{alias:<10}  {why}"])
