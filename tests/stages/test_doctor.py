"""`video-lstm doctor PATH` as people call it: every file of the zoo gets the verdict it deserves."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.video.writer import write_video
from tests.zoo import OK, rows, verdict

WITHOUT_AV = "import sys\nsys.modules['av'] = None\n"


@pytest.mark.parametrize("av", [True, False], ids=["with [av]", "without [av]"])
def test_every_file_of_the_zoo_gets_its_verdict(data_root: Path, tmp_path: Path, command: str, av: bool) -> None:
    environment = os.environ | {"VIDEO_LSTM_CACHE": str(tmp_path / "cache")}
    if av:
        pytest.importorskip("av", reason="the extra [av] is not installed")
    else:
        (tmp_path / "sitecustomize.py").write_text(WITHOUT_AV)
        environment["PYTHONPATH"] = str(tmp_path)
    index = rows(data_root / "zoo")
    done = subprocess.run(
        [command, "doctor", str(data_root / "zoo"), "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    found = json.loads(done.stdout)
    expected = {row["file"]: str(verdict(row, av)) for row in index}
    failed = {Path(item["path"]).name: item["reason"] for item in found["failures"]}
    assert failed == {name: reason for name, reason in expected.items() if reason != OK}
    assert found["files"] == len(index) == 147
    assert found["reasons"] == dict(Counter(failed.values()))
    assert "Traceback" not in done.stderr


def test_doctor_names_what_fails_and_what_is_unusual(data_root: Path, tmp_path: Path, command: str) -> None:
    environment = os.environ | {"VIDEO_LSTM_CACHE": str(tmp_path / "cache")}
    names = ("8k24fps_300ms.mp4", "video_90.mov", "bigbuckbunny.mp4")
    done = subprocess.run(
        [command, "doctor", *(str(data_root / "zoo" / name) for name in names), "--limits.megapixels", "5"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert "8k24fps_300ms.mp4: too large (7680 x 4320 pixels" in done.stdout
    assert "video_90.mov: ok, rotated" in done.stdout
    assert "bigbuckbunny" not in done.stdout and "3 files, 2 ok, 1 failed" in done.stdout


def test_doctor_finds_hidden_files_and_names_that_are_not_utf8(tmp_path: Path, command: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    write_video(str(tmp_path / "clip.mp4"), frames, 10.0)
    data = (tmp_path / "clip.mp4").read_bytes()
    odd = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    for path in (tmp_path / ".hidden.mp4", tmp_path / "no_suffix", tmp_path / "a b\nc.mp4", odd):
        Path(os.fsdecode(path)).write_bytes(data)
    (tmp_path / "LICENSE").write_text("words")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x.mp4").write_text("words")
    environment = os.environ | {"VIDEO_LSTM_CACHE": str(tmp_path / ".cache")}
    done = subprocess.run(
        [command, "doctor", str(tmp_path), "--json"], capture_output=True, env=environment, check=True
    )
    found = json.loads(done.stdout)
    assert (found["files"], found["ok"]) == (5, 5)
