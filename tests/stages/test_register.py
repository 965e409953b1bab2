from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.config import TrackingConfig
from pipeline.errors import CheckpointError, DataError, TrackingError
from pipeline.model import checkpoint
from pipeline.stages.models import load_model
from pipeline.stages.register import register_model, registered_text
from pipeline.tracking.download import download
from pipeline.tracking.store import connect


@pytest.fixture(scope="module")
def tracking(example: Any) -> TrackingConfig:
    return TrackingConfig(uri=example.uri, experiment="tests")


@pytest.fixture(scope="module")
def confused(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is wrong where the example's is right, from a machine with another store."""
    folder = tmp_path_factory.mktemp("confused") / "model"
    model, card = checkpoint.load(example.folder / "best")
    extra = {**card.extra, "run_id": "0" * 32}
    checkpoint.save(
        folder, model.state_dict(), replace(card, classes=[*card.classes[1:], card.classes[0]], extra=extra)
    )
    return folder


def champion(tracking: TrackingConfig, name: str) -> str:
    return str(connect(str(tracking.uri)).get_model_version_by_alias(name, "champion").version)


def test_a_champion_is_replaced_by_a_better_model_alone(
    example: Any, confused: Path, tracking: TrackingConfig, tmp_path: Path
) -> None:
    bad = register_model(str(confused), "gate", "champion", tracking=tracking, device="cpu", workers=0)
    assert (bad["decision"], bad["has_alias"], champion(tracking, "gate")) == ("first", True, "1")
    good = register_model(str(example.folder), "gate", "champion", tracking=tracking, device="cpu", workers=0)
    assert (good["decision"], good["against"], champion(tracking, "gate")) == ("better", "models:/gate/1", "2")
    again = register_model(str(confused), "gate", "champion", tracking=tracking, device="cpu", workers=0)
    assert (again["decision"], again["has_alias"], champion(tracking, "gate")) == ("not better", False, "2")
    assert "stays with models:/gate/2, which is better" in registered_text(again)
    forced = register_model(
        "models:/gate/1", "gate", "champion", force=True, tracking=tracking, device="cpu", workers=0
    )
    assert (forced["decision"], champion(tracking, "gate")) == ("forced", "1")
    client = connect(str(tracking.uri))
    tags = client.get_model_version("gate", "2").tags
    assert tags["gate.champion"] == "better" and tags["gate.against"] == "models:/gate/1"
    assert tags["gate.difference"].startswith("top-1 +") and "McNemar p" in tags["gate.difference"]
    test = example.result.test
    assert tags["test.top1"] == f"{test['top1']:.3f} [{test['top1_low']:.2f}, {test['top1_high']:.2f}]"
    assert not {"test.top1_low", "test.top1_high"} & set(tags) and tags["test.n"] == str(test["n"])
    assert tags["dataset.digest"] and tags["model.digest"] == checkpoint.digest(example.folder / "best")
    run_tags = client.get_run(example.result.run_id).data.tags
    assert tags["git.commit"] == run_tags["mlflow.source.git.commit"]
    kept = Path(client.get_logged_model(good["model_id"]).artifact_location.removeprefix("file://"))
    assert {"compare.json", "compare.png", "differ.csv"} == {p.name for p in (kept / "comparisons/gate-2").iterdir()}


def test_a_model_of_a_run_is_registered_as_the_model_that_it_is(example: Any, tracking: TrackingConfig) -> None:
    run_id = example.result.run_id
    for address in (f"runs:/{run_id}", f"runs:/{run_id}/model", str(example.folder), str(example.folder / "best")):
        found = register_model(address, "same", tracking=tracking)
        assert (found["model"], found["alias"], found["has_alias"]) == ("models:/same/1", None, False)
    client = connect(str(tracking.uri))
    logged = client.search_logged_models([client.get_run(run_id).info.experiment_id], f"source_run_id = '{run_id}'")
    assert [model.model_id for model in logged] == [found["model_id"]]
    assert client.get_model_version("same", "1").run_id == run_id
    assert json.loads(logged[0].tags["mlflow.modelVersions"])[-1] == {"name": "same", "version": "1"}


@pytest.mark.parametrize("form", ["runs:/RUN", "models:/forms/1", "models:/forms@best", "models:/MODEL"])
def test_every_address_is_this_model(example: Any, tracking: TrackingConfig, form: str) -> None:
    found = register_model(str(example.folder), "forms", "best", tracking=tracking)
    address = form.replace("RUN", example.result.run_id).replace("MODEL", found["model_id"])
    assert load_model(address, "cpu", tracking).digest == checkpoint.digest(example.folder / "best")


def test_a_checkpoint_that_changed_since_its_run_is_another_model(
    example: Any, tracking: TrackingConfig, tmp_path: Path
) -> None:
    model, card = checkpoint.load(example.folder / "best")
    checkpoint.save(tmp_path / "changed", model.state_dict(), replace(card, metrics={}))
    first = register_model(str(example.folder), "changed", tracking=tracking)
    second = register_model(str(tmp_path / "changed"), "changed", tracking=tracking)
    assert (second["version"], second["model_id"] != first["model_id"]) == ("2", True)
    there = download("models:/changed/2", tmp_path / "there", tracking)
    assert checkpoint.digest(there) == checkpoint.digest(tmp_path / "changed")
    assert checkpoint.digest(download("models:/changed/1", tmp_path / "first", tracking)) == checkpoint.digest(
        example.folder / "best"
    )


def test_what_cannot_be_registered_leaves_nothing_behind(
    example: Any, confused: Path, tracking: TrackingConfig, tmp_path: Path
) -> None:
    register_model(str(example.folder), "careful", "champion", tracking=tracking)
    with pytest.raises(DataError, match="--force"):
        register_model(str(confused), "careful", "champion", str(tmp_path), tracking=tracking, workers=0)
    client = connect(str(tracking.uri))
    assert len(client.search_model_versions("name = 'careful'")) == 1
    with pytest.raises(TrackingError, match="reserved"):
        register_model(str(example.folder), "other", "v1", tracking=tracking)
    assert client.search_model_versions("name = 'other'") == []
    for model, error in (
        ("nowhere", CheckpointError),
        ("runs:/0123", TrackingError),
        ("models:/none@x", TrackingError),
    ):
        with pytest.raises(error, match=model):
            register_model(model, "careful", tracking=tracking)


def test_the_command_says_by_its_exit_code_who_has_the_alias(
    example: Any, confused: Path, tracking: TrackingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--name", "command", "--alias", "champion", "--uri", str(tracking.uri), "--workers", "0"]
    main(["register", str(example.folder), *common])
    assert "nobody had it before" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["register", str(confused), *common, "--json"])
    assert ended.value.code == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["decision"], result["comparison"]["better"]) == ("not better", "b")
