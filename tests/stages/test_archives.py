"""An archive is classified bit by bit: killed, interrupted and resumed, without a row lost or doubled."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import DataError, UserError
from pipeline.report import parts
from pipeline.stages import classify as stage
from pipeline.stages.classify import classify
from pipeline.stages.journal import opened_journal
from pipeline.stages.predict import Predictor

ROOT = Path(__file__).resolve().parents[2]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]


def interrupt(predictor: Predictor, clips: Path, out: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classify, with a Ctrl-C after so many rows."""
    result_row, left = stage.result_row, iter(range(after))

    def interrupted_row(*given: Any) -> dict[str, Any]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return result_row(*given)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "result_row", interrupted_row)
        with pytest.raises(KeyboardInterrupt):
            classify(predictor, clips, out, workers=0)


@pytest.fixture(scope="module")
def whole(predictor: Predictor, tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole") / "rows.jsonl"
    classify(predictor, tiny_clips, out, workers=0)
    assert [path.name for path in out.parent.iterdir() if path.name != ".rows.jsonl.lock"] == ["rows.jsonl"]
    return rows_of(out)


@pytest.fixture
def interrupted(
    predictor: Predictor,
    tiny_clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Path:
    """A table whose classification got a Ctrl-C after 12 rows."""
    out = tmp_path / "rows.jsonl"
    interrupt(predictor, tiny_clips, out, 12, monkeypatch)
    assert "rows.jsonl holds the first 12 of 35 rows; the same command goes on from there" in capsys.readouterr().err
    return out


def test_a_ctrl_c_leaves_a_table_of_what_was_done_and_says_how_to_go_on(
    interrupted: Path, whole: list[dict[str, Any]]
) -> None:
    assert rows_of(interrupted) == whole[:12]
    assert interrupted.with_name(".rows.jsonl.journal").exists()


def test_the_same_call_goes_on_and_does_nothing_twice(
    interrupted: Path,
    predictor: Predictor,
    tiny_clips: Path,
    whole: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    predict = predictor.predict

    def counted(files: list[str], *rest: Any, **options: Any) -> Any:
        asked.append(len(files))
        return predict(files, *rest, **options)

    monkeypatch.setattr(predictor, "predict", counted)
    result = classify(predictor, tiny_clips, interrupted, workers=0)
    assert asked == [len(whole) - 12] and "going on after 12 of 35 files" in capsys.readouterr().err
    assert rows_of(interrupted) == whole
    assert (result.rows, result.ok, result.failed, result.reasons) == (35, 30, 5, {"not a video": 5})
    assert [row["path"] for row in result.table] == [row["path"] for row in whole]
    assert not interrupted.with_name(".rows.jsonl.journal").exists()


def test_a_line_that_a_kill_cut_short_is_done_again(
    interrupted: Path, predictor: Predictor, tiny_clips: Path, whole: list[dict[str, Any]]
) -> None:
    journal = interrupted.with_name(".rows.jsonl.journal")
    journal.write_bytes(journal.read_bytes()[:-40])
    classify(predictor, tiny_clips, interrupted, workers=0, keep=False)
    assert rows_of(interrupted) == whole


def test_a_journal_without_a_whole_first_line_is_begun_anew(
    predictor: Predictor, tiny_clips: Path, tmp_path: Path, whole: list[dict[str, Any]]
) -> None:
    (tmp_path / ".rows.jsonl.journal").write_bytes(b'{"format": 1, "mod')
    assert classify(predictor, tiny_clips, tmp_path / "rows.jsonl", workers=0, keep=False).table == []
    assert rows_of(tmp_path / "rows.jsonl") == whole


def test_other_files_options_or_models_do_not_go_on_but_fresh_begins_anew(
    interrupted: Path, predictor: Predictor, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"top_k was 5, is 2.*--fresh"):
        classify(predictor, tiny_clips, interrupted, top_k=2, workers=0)
    with pytest.raises(UserError, match=r"files are not the same: 35 before, 10 now"):
        classify(predictor, tiny_clips / "green", interrupted, workers=0)
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "digest", "f" * 64)
        with pytest.raises(UserError, match=r"the model was [0-9a-f]{12}, is ffffffffffff"):
            classify(predictor, tiny_clips, interrupted, workers=0)
    assert classify(predictor, tiny_clips / "green", interrupted, workers=0, fresh=True).rows == 10
    assert len(rows_of(interrupted)) == 10


def test_a_second_run_on_one_table_is_refused(predictor: Predictor, tiny_clips: Path, tmp_path: Path) -> None:
    with (
        opened_journal(tmp_path / "rows.csv", {"model": "m"}),
        pytest.raises(UserError, match=r"rows\.csv: another run is writing this table"),
    ):
        classify(predictor, tiny_clips / "green", tmp_path / "rows.csv", workers=0)
    (tmp_path / ".rows.csv.journal").unlink()
    assert classify(predictor, tiny_clips / "green", tmp_path / "rows.csv", workers=0).ok == 10


def test_a_folder_that_cannot_be_written_is_named_before_the_work(
    predictor: Predictor, tiny_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"rows\.csv: cannot be written"):
        classify(predictor, tiny_clips, tmp_path / "file" / "rows.csv", workers=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trials fork")
def test_three_kills_lose_no_row(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "kill_classify.py"), "--quick", "--json"],
        capture_output=True, text=True, timeout=250, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["trials"], found["rows"], found["differences"]) == (3, 38, 0) and found["kills"] >= 3


def test_neither_pandas_nor_albumentations_are_loaded_to_classify(
    example: Any, tiny_clips: Path, tmp_path: Path
) -> None:
    """Cold start: what one file does not need costs it no time."""
    clip = next((tiny_clips / "green").iterdir())
    code = (
        "import sys; from pipeline.cli import main; main(sys.argv[1:]);"
        "print([n for n in ('pandas', 'pyarrow', 'albumentations', 'sklearn', 'mlflow', 'matplotlib', 'scipy')"
        " if n in sys.modules])"
    )
    given = ["classify", str(example.folder), str(clip), "--out", str(tmp_path / "one.csv"), "--workers", "0"]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, timeout=250,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def page(predictor: Predictor, tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The results page in Chromium, of clips and hostile names."""
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists() or importlib.util.find_spec("playwright") is None:
        pytest.skip("Chromium and Playwright are not on this machine")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("page")
    (folder / "clips").mkdir()
    for clip in sorted(tiny_clips.rglob("*c0[129].*"))[:14]:
        (folder / "clips" / clip.name).write_bytes(clip.read_bytes())
    hostile = folder / "clips" / "<img src=x onerror=document.title='hit'>.avi"
    hostile.write_bytes(next(tiny_clips.rglob("v_red*.avi")).read_bytes())
    (folder / "clips" / "<script>document.title='hit'<.mp4").write_bytes(b"no video")
    classify(predictor, folder / "clips", html=folder / "deep" / "page.html", workers=0)
    flags = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(chromium), args=[*flags.split(), "--disable-sync"])
        shown = browser.new_page()
        shown.errors = []  # type: ignore[attr-defined]
        shown.on("pageerror", lambda error: shown.errors.append(str(error)))  # type: ignore[attr-defined]
        shown.on(
            "request", lambda request: request.url.startswith(("file:", "data:")) or shown.errors.append(request.url)
        )  # type: ignore[attr-defined]
        shown.goto((folder / "deep" / "page.html").as_uri())
        yield shown
        browser.close()


def test_the_page_filters_sorts_and_searches(page: Any) -> None:
    lines = page.locator("#list li")
    total = lines.count()
    assert total > 10 and page.locator("#list img").count() == total
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.select_option("#label", "red")
    assert 0 < lines.count() < total
    assert all(text.startswith("red") for text in page.locator("#list .label").all_inner_texts())
    page.locator(".chip[data-label=red]").click()  # once more: all labels again
    assert lines.count() == total
    for order, sign in (("down", -1), ("up", 1)):
        page.select_option("#sort", order)
        shown = [float(text.split()[-1]) * sign for text in page.locator("#list .label").all_inner_texts()]
        assert shown == sorted(shown)
    page.fill("#search", "onerror AVI")
    assert lines.count() == 1 and "<img src=x" in lines.first.inner_text()
    page.fill("#search", "nothing is called so")
    assert lines.count() == 0 and page.inner_text("#count") == "0 files"
    page.fill("#search", "")


def test_hostile_names_are_text_and_failed_files_have_their_reasons(page: Any) -> None:
    assert page.title() == "page" and page.errors == []
    failures = page.inner_text("#failures")
    assert "<script>document.title='hit'<.mp4" in failures and "not a video" in failures


def test_a_large_archive_makes_a_bounded_page(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages import archive_page

    monkeypatch.setattr(archive_page, "ROWS", 5)
    monkeypatch.setattr(archive_page, "PICTURES", 2)
    monkeypatch.setattr(archive_page, "FAILED", 3)
    good = {"status": "ok", "label": "red", "probability": 0.5, "top_k": [], "duration": 1.0, "note": ""}
    rows = [{"path": f"{i}.mp4", **(good if i % 2 else {"status": "empty", "note": ""})} for i in range(40)]
    archive_page.write_archive_page(rows, tmp_path / "page.html", predictor, workers=0)
    text = (tmp_path / "page.html").read_text()
    assert "first 5 of 20 classified" in text and "first 2 have a picture" in text and "first 3 are named" in text
    assert "39.mp4" not in text and "20 failed" in text


def test_another_suffix_of_the_page_is_refused_before_the_work(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"page\.pdf: the page is written as \.html"):
        classify(predictor, tmp_path / "nowhere", html=tmp_path / "page.pdf")


def test_nothing_left_to_do_is_still_an_error_where_no_file_could_be_classified(
    predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")
    for _ in range(2):
        with pytest.raises(DataError, match="none of the 1 files"):
            classify(predictor, tmp_path / "no.mp4", tmp_path / "rows.csv", workers=0)
    assert not (tmp_path / ".rows.csv.journal").exists()


def test_a_folder_of_parts_goes_on_and_refuses_what_is_not_its_own(
    predictor: Predictor, tiny_clips: Path, whole: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 10)
    out = tmp_path / "labels"
    interrupt(predictor, tiny_clips, out, 14, monkeypatch)
    assert len(pd.read_parquet(out)) == 14
    classify(predictor, tiny_clips, out, workers=0)
    assert sorted(path.name for path in out.iterdir()) == [f"part-0000{number}.parquet" for number in range(4)]
    assert pd.read_parquet(out).path.tolist() == [row["path"] for row in whole]
    with pytest.raises(DataError, match=r"holds part-00000\.parquet already"):
        classify(predictor, tiny_clips, out, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
    classify(predictor, tiny_clips, out, workers=0, fresh=True)
    assert len(pd.read_parquet(out)) == len(whole)
