from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.stages.classify import classify
from pipeline.stages.serve import scratch
from pipeline.stages.serve.engine import VideoServer
from pipeline.stages.serve.folder import example_video
from pipeline.stages.serve.settings import Settings, from_environment
from tests.hostile import hostile_environment


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_clips: Path) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    good = sorted((tiny_clips / "red").iterdir())[0]
    for name in ("good", "crash", "hang"):
        (folder / f"{name}{good.suffix}").write_bytes(good.read_bytes())
    return folder


@pytest.fixture(scope="module")
def server(predictor: Any, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoServer]:
    """Two decoding processes that misbehave on files named crash or hang."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in hostile_environment(tmp_path_factory.mktemp("hostile")).items():
            patch.setenv(key, value)
        server = VideoServer(predictor, Settings(allow=str(shelf), megabytes=0.5, timeout=20, workers=2))
        yield server
        server.close()


def left(server: VideoServer) -> list[str]:
    return os.listdir(server._scratch.folder)


def test_many_callers_get_the_answers_of_classify_and_no_others(
    server: VideoServer, predictor: Any, tiny_clips: Path
) -> None:
    files = sorted(path for path in tiny_clips.rglob("*") if path.is_file())[:16]
    rows = classify(predictor, [str(path) for path in files], workers=0).table
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda path: server.answer(content=encoded(path), name=path.name), files * 2))
    assert {row["status"] for row in rows} == {"ok", "not a video"}
    for answer, row in zip(answers, rows * 2, strict=True):
        assert answer == {key: row[key] for key in answer}
        assert answer["status"] != "ok" or answer["label"] in predictor.classes
    assert left(server) == []


def test_a_decoder_that_crashes_costs_its_row(server: VideoServer, shelf: Path) -> None:
    crash, good = sorted(shelf.glob("crash*"))[0], sorted(shelf.glob("good*"))[0]
    answer = server.answer(video=str(crash))
    assert (answer["status"], answer["note"]) == ("decoder crashed", "SIGSEGV")
    assert [server.answer(video=str(good))["status"] for _ in range(3)] == ["ok"] * 3


def test_what_takes_too_long_is_given_up_and_the_end_leaves_nothing(
    predictor: Any, server: VideoServer, shelf: Path
) -> None:
    hang = sorted(shelf.glob("hang*"))[0]
    threads = threading.active_count()
    impatient = VideoServer(predictor, Settings(allow=str(shelf), seconds=0.5, timeout=3, workers=1))
    try:
        answer = impatient.answer(content=base64.b64encode(example_video()).decode())
        assert (answer["status"], answer["note"]) == ("too large", "it lasts 1 s, over 0.5 s")
        answer = impatient.answer(video=str(hang))
        assert (answer["status"], answer["note"]) == ("timed out", "after 3 s")
    finally:
        impatient.close()
    assert threading.active_count() == threads
    assert not impatient._scratch.folder.exists()


def test_what_is_wrong_with_a_row_is_its_status(server: VideoServer, shelf: Path, tmp_path: Path) -> None:
    content = base64.b64encode(example_video()).decode()
    (tmp_path / "secret.mp4").write_bytes(example_video())
    for given, status, note in (
        ({}, "not readable", "a row needs either"),
        ({"video": "a", "content": content}, "not readable", "a row needs either"),
        ({"video": float("nan"), "content": None}, "not readable", "a row needs either"),
        ({"content": "no base64!"}, "not readable", "not base64"),
        ({"content": "A" * 10**6}, "too large", "over 0.5 MB"),
        ({"content": "data:video/mp4;base64,"}, "empty", ""),
        ({"content": "", "video": None}, "empty", ""),
        ({"video": str(tmp_path / "secret.mp4")}, "not readable", "not allowed"),
        ({"video": f"{shelf}/../{tmp_path.name}/secret.mp4"}, "not readable", "not allowed"),
        ({"video": "file://" + str(shelf / "good.avi")}, "not readable", "not allowed"),
        ({"video": "http://169.254.169.254/latest"}, "not readable", "not allowed"),
        ({"video": str(shelf / "none.mp4")}, "not found", ""),
    ):
        answer = server.answer(**given)
        assert answer["status"] == status and note in answer["note"], (given, answer)
        assert "label" not in answer
    assert server.answer(content="data:video/mp4;base64," + content)["status"] == "ok"
    assert left(server) == []


def test_a_playlist_does_not_open_the_file_it_names(server: VideoServer, tmp_path: Path) -> None:
    """FFmpeg follows HLS playlists: whoever sends one could have any file of the server labelled."""
    private = tmp_path / "private.ts"
    private.write_bytes(example_video())
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:9", "#EXTINF:1,", str(private), "#EXT-X-ENDLIST", ""]
    answer = server.answer(content=base64.b64encode("\n".join(lines).encode()).decode(), name="a.mp4")
    assert (answer["status"], answer["note"]) == ("not a video", "a playlist, which names other files")


def test_an_uncertain_answer_has_no_label(server: VideoServer) -> None:
    content = base64.b64encode(example_video()).decode()
    sure = server.answer(content=content, top_k=2)
    assert len(sure["top_k"]) == 2
    doubtful = server.answer(content=content, top_k=2, min_probability=1.0)
    assert doubtful["status"] == "uncertain" and doubtful["label"] is None
    assert doubtful["note"] == f"the best label, {sure['label']}, is below the minimum"
    assert (doubtful["probability"], doubtful["top_k"]) == (sure["probability"], sure["top_k"])


def test_a_picture_without_a_name_is_one(server: VideoServer, predictor: Any, tmp_path: Path) -> None:
    picture = np.full((32, 48, 3), (40, 50, 200), np.uint8)
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".tif"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
        row = classify(predictor, [str(path)], workers=0).table[0]
        answer = server.answer(content=encoded(path))
        assert (answer["status"], answer["probability"]) == ("ok", row["probability"]), suffix


def test_a_bug_costs_its_row_and_is_in_the_log(
    server: VideoServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server.predictor, "answer", lambda clip: 1 / 0)
    answer = server.answer(content=base64.b64encode(example_video()).decode())
    assert answer["note"] == "an error of the server: ZeroDivisionError"
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_what_a_killed_server_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    dead, alive = tmp_path / f"{scratch.PREFIX}{2**22 + 1}-x", tmp_path / f"{scratch.PREFIX}{os.getpid()}-y"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "clip").write_bytes(b"x")
    new = scratch.Scratch()
    assert new.folder.exists() and (new.folder.stat().st_mode & 0o777) == 0o700
    assert alive.exists() and not dead.exists()
    new.close()
    assert not new.folder.exists()


def test_the_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_environment() == Settings()
    for name, value in (("MB", "none"), ("SECONDS", "-1"), ("TIMEOUT", "inf"), ("WORKERS", "0")):
        with monkeypatch.context() as patch:
            patch.setenv(f"VIDEO_LSTM_SERVE_{name}", value)
            with pytest.raises(ConfigError, match=f"VIDEO_LSTM_SERVE_{name} is '{value}'"):
                from_environment()
