"""What a trial's process does, without the process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import to_dict
from pipeline.stages.resume import NAME as RESUME
from pipeline.stages.sweep import worker
from pipeline.stages.sweep.worker import logged, perform


class Wire:
    """Prunes after the epochs named."""

    busy = True

    def __init__(self, prune_after: int = 99, gone_after: int = 99) -> None:
        self.prune_after, self.gone_after, self.said = prune_after, gone_after, []  # type: ignore[var-annotated]

    def send(self, message: dict[str, Any]) -> None:
        self.said.append(dict(message))

    def take(self) -> dict[str, Any] | None:
        epoch = self.said[-1]["epoch"]
        return None if epoch >= self.gone_after else {"prune": epoch >= self.prune_after}


def task(config: Any, folder: Path, do: str = "train", **more: Any) -> dict[str, Any]:
    named = {"folder": str(folder), "slot": 0, "parallel": 1, "metric": "val_top1", "parent": None}
    return {"do": do, "config": to_dict(config), **named, **more}


def test_a_trial_says_each_epoch_and_ends_when_it_is_told_to(make_config: Any, tmp_path: Path) -> None:
    config, wire = make_config(training__epochs=4), Wire(prune_after=2)
    assert perform(task(config, tmp_path / "trial"), wire) == {"pruned": True}  # type: ignore[arg-type]
    assert [said["epoch"] for said in wire.said] == [1, 2] and 0 <= wire.said[-1]["value"] <= 1
    assert json.loads((tmp_path / "trial/pruned.json").read_text()) == wire.said[-1]
    assert not list((tmp_path / "trial").glob("resume*")) and "epoch   2" in (tmp_path / "trial/log.txt").read_text()
    asked_again = Wire()
    assert perform(task(config, tmp_path / "trial"), asked_again) == {"pruned": True}  # type: ignore[arg-type]
    assert asked_again.said == []


def test_a_trial_whose_sweep_is_gone_stops_and_goes_on_later(make_config: Any, tmp_path: Path) -> None:
    config = make_config(training__epochs=3)
    with pytest.raises(KeyboardInterrupt):
        perform(task(config, tmp_path / "trial"), Wire(gone_after=2))  # type: ignore[arg-type]
    assert (tmp_path / "trial" / RESUME).exists() and not (tmp_path / "trial/pruned.json").exists()
    done = perform(task(config, tmp_path / "trial"), Wire())  # type: ignore[arg-type]
    assert 0 < done["finished"] <= 1 and done["run_id"] is None
    assert perform(task(config, tmp_path / "trial"), Wire()) == done  # type: ignore[arg-type]
    tested = perform(task(config, tmp_path / "trial", "test"), Wire())  # type: ignore[arg-type]
    assert tested["test"]["n"] == 12


def test_what_goes_wrong_is_an_answer(make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = make_config(data__root=str(tmp_path / "nowhere"))
    assert "does not exist" in perform(task(missing, tmp_path, "check"), Wire())["failed"]  # type: ignore[arg-type]
    unseen = make_config(data__val=0.0)
    assert "no validation clips" in perform(task(unseen, tmp_path, "check"), Wire())["failed"]  # type: ignore[arg-type]

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory\nand more")

    monkeypatch.setattr(worker, "train", broken)
    answer = perform(task(make_config(), tmp_path / "trial"), Wire())  # type: ignore[arg-type]
    assert answer["failed"] == "RuntimeError: CUDA out of memory" and "broken" in answer["traceback"]
    assert "CUDA out of memory" in (tmp_path / "trial/log.txt").read_text()


def test_trials_share_cores_and_take_turns_on_gpus(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(training__workers=-1, training__device="auto")
    monkeypatch.setattr(worker, "choose_workers", lambda _: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    settings = [worker._placed(config, {"slot": slot, "parallel": 3}).training for slot in range(3)]
    assert [s.workers for s in settings] == [2, 2, 2] and [s.device for s in settings] == ["cuda:0", "cuda:1", "cuda:0"]
    assert worker._placed(config, {"slot": 0, "parallel": 1}) == config


def test_what_a_trial_writes_goes_into_its_log_and_nowhere_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def write_and_fail() -> None:
        print("from Python", file=sys.stderr)
        os.write(1, b"from C\n")
        raise ValueError("oh")

    with pytest.raises(ValueError, match="oh"), logged(tmp_path / "log.txt"):
        write_and_fail()
    print("outside")
    assert capfd.readouterr() == ("outside\n", "")
    text = (tmp_path / "log.txt").read_text()
    assert "from Python" in text and "from C" in text and "ValueError: oh" in text
