"""Trainings that start from a model, `training.start_from`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import RecurrentConfig
from pipeline.data import catalog
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.model import checkpoint
from pipeline.stages import train
from pipeline.stages.compare import unseen
from pipeline.stages.extract_all import check_frozen
from pipeline.stages.find_rate import find_rate
from pipeline.stages.scoring import learned

NOTHING = {"training__learning_rate": 1e-12, "training__epochs": 1}
"""A training that leaves the weights where they are, but for batch norm's averages."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder)[0].state_dict()


def test_it_begins_where_the_other_one_ended(example: Any, make_config: Any, tmp_path: Path) -> None:
    config = make_config(training__start_from=str(example.folder), **NOTHING)
    train.train(config, tmp_path / "run")
    before, after = weights(example.folder / "best"), weights(tmp_path / "run/best")
    for name, x in before.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(after[name], x, rtol=1e-5, atol=1e-7)
    card = checkpoint.read_card(tmp_path / "run/best")
    assert card.extra["start"]["digest"] == checkpoint.digest(example.folder / "best")


def test_a_model_of_the_registry_is_named_like_any_other(example: Any, make_config: Any, tmp_path: Path) -> None:
    name = f"runs:/{example.result.run_id}"
    tracking = replace(example.config.tracking, enabled=False)
    train.train(make_config(training__start_from=name, tracking=tracking, **NOTHING), tmp_path / "run")
    assert checkpoint.read_card(tmp_path / "run/best").extra["start"]["model"] == name


def test_a_class_more_gets_a_row_of_its_own(
    example: Any, make_config: Any, tiny_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_clips, tmp_path / "clips")
    shutil.copytree(tiny_clips / "red", tmp_path / "clips/a_new_one")
    for path in (tmp_path / "clips/a_new_one").iterdir():  # other content, other clips
        path.write_bytes(path.read_bytes() + b"\0")
    config = make_config(
        training__start_from=str(example.folder / "best"), data__root=str(tmp_path / "clips"), **NOTHING
    )
    train.train(replace(config, data=replace(config.data, allow_leak=True)), tmp_path / "run")
    assert "it does not know a_new_one" in capsys.readouterr().err
    before, after = weights(example.folder / "best"), weights(tmp_path / "run/best")
    torch.testing.assert_close(
        after["branches.rgb.output.weight"][1:], before["branches.rgb.output.weight"], rtol=1e-5, atol=1e-7
    )


def test_what_it_learned_from_may_not_judge_the_new_training(example: Any, make_config: Any, tmp_path: Path) -> None:
    config = make_config(training__start_from=str(example.folder), data__split_seed=1, **NOTHING)
    with pytest.raises(DataError, match=r"validation and test clips, such as .*, were used to train .*allow_leak"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_chain_of_models_remembers_all_that_it_has_seen(example: Any, make_config: Any, tmp_path: Path) -> None:
    def chained(start: Path, out: str, seed: int) -> Path:
        config = make_config(training__start_from=str(start), data__split_seed=seed, data__allow_leak=True, **NOTHING)
        train.train(config, tmp_path / out)
        return tmp_path / out

    last = chained(chained(example.folder, "one", 1), "two", 2)
    cards = [checkpoint.read_card(folder / "best") for folder in (example.folder, tmp_path / "one", last)]
    own = [{*card.split["train"], *card.split["val"]} for card in cards]
    assert learned(cards[-1].split) == own[0] | own[1] | own[2] > own[2]
    table = catalog.read(last / "catalog.parquet")
    assert unseen(table, cards[-1].split, {})[1]["a"] == len(table) - len(unseen(table, cards[-1].split, {})[0])


def test_interrupted_it_ends_as_if_nothing_had_happened_though_its_start_is_gone(
    example: Any, make_config: Any, tmp_path: Path
) -> None:
    shutil.copytree(example.folder / "best", tmp_path / "start")
    config = make_config(training__start_from=str(tmp_path / "start"), training__epochs=3)
    train.train(config, tmp_path / "whole")

    def stop(row: dict[str, float], _: Any) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(config, tmp_path / "run", on_epoch=stop)
    shutil.rmtree(tmp_path / "start")
    train.train(config, tmp_path / "run")
    one, two = weights(tmp_path / "whole/best"), weights(tmp_path / "run/best")
    assert all(torch.equal(one[name], two[name]) for name in one)
    cards = [checkpoint.read_card(tmp_path / name / "best") for name in ("whole", "run")]
    assert cards[0].split == cards[1].split and cards[0].extra["start"] == cards[1].extra["start"]


@pytest.mark.usefixtures("frozen_changes")
def test_a_frozen_encoder_must_still_be_the_one_it_began_with(
    make_config: Any, frozen_changes: dict[str, Any], tmp_path: Path
) -> None:
    train.train(make_config(**frozen_changes), tmp_path / "start")
    config = make_config(**frozen_changes, training__start_from=str(tmp_path / "start"), training__epochs=3)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(config, tmp_path / "run", on_epoch=stop)
    model, card = checkpoint.load(tmp_path / "start/best")
    checkpoint.save(tmp_path / "start/best", model.state_dict(), replace(card, extra={**card.extra, "note": "other"}))
    with pytest.raises(CheckpointError, match="not the model any more"):
        train.train(config, tmp_path / "run")


def test_another_build_is_named_with_the_options_that_differ(example: Any, make_config: Any, tmp_path: Path) -> None:
    config = make_config(training__start_from=str(example.folder), recurrent=RecurrentConfig(kind="gru", hidden=9))
    with pytest.raises(ConfigError, match=r"another kind of model; different are .*recurrent\.hidden.*recurrent\.kind"):
        train.train(config, tmp_path / "run")
    config = make_config(training__start_from=str(example.folder), encoder__grid=2)
    with pytest.raises(ConfigError, match=r"has the shape .* different are encoder\.grid"):
        train.train(config, tmp_path / "run")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        train.train(make_config(training__start_from=str(tmp_path / "nothing")), tmp_path / "run")


def test_the_range_test_begins_there_too(
    example: Any, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.find_rate.UPDATES", 12)
    fresh = find_rate(make_config(), tmp_path / "fresh")
    started = find_rate(make_config(training__start_from=str(example.folder)), tmp_path / "started")
    assert started.losses[0] < fresh.losses[0]
    json.loads((tmp_path / "started/report/learning_rate.json").read_text())


def test_a_frozen_encoder_needs_no_other_weights_then(make_config: Any) -> None:
    with pytest.raises(ConfigError, match="no features worth storing"):
        check_frozen(make_config(encoder__frozen=True))
    check_frozen(make_config(encoder__frozen=True, training__start_from="runs/demo"))


@pytest.mark.parametrize("task", ["regression", "label"])
def test_what_it_is_standardised_with_stays(make_config: Any, tiny_clips: Path, tmp_path: Path, task: str) -> None:
    rows = ["path,group,value" if task == "regression" else "path,group,label"]
    for number, path in enumerate(sorted(tiny_clips.rglob("*c0[12].*"))):
        rows.append(f"{path},{path.stem[-7:-4]},{number % 7 if task == 'regression' else path.parent.name}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    flow = {"task": task, "video__streams": "difference", "data__root": str(tmp_path / "list.csv"), **NOTHING}
    train.train(make_config(**flow), tmp_path / "start")
    other = {"data__test": 0.2, "data__allow_leak": True}  # so that it learns from other clips
    train.train(make_config(**flow, **other, training__start_from=str(tmp_path / "start")), tmp_path / "run")
    before, after = weights(tmp_path / "start/best"), weights(tmp_path / "run/best")
    names = [name for name in before if "standardisation" in name or "target" in name]
    assert len(names) == 2 + 2 * (task == "regression")
    assert all(torch.equal(before[name], after[name]) for name in names)
    assert any(bool((before[name] != 0).any()) for name in names)
