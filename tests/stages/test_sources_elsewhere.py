from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.addresses import shown
from pipeline.config import DataConfig, FetchConfig
from pipeline.config.folders import cache_dir
from pipeline.data.layouts import discover
from pipeline.data.remote.fetcher import Fetcher
from pipeline.errors import ConfigError, DataError
from pipeline.stages.classify import classify
from pipeline.stages.find import find_files
from pipeline.stages.journal import Journal
from pipeline.stages.predict import Predictor
from tests.web_server import Site, serving

pytest.importorskip("s3fs", reason="the extra [remote] is not installed")

QUICK = FetchConfig(stall=1.0, seconds=20.0, retries=2)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def clips(tiny_clips: Path) -> dict[str, bytes]:
    """By name; the last one is no video."""
    good = sorted(tiny_clips.rglob("*g01_c0[12]*"))
    bad = tiny_clips / "blue" / "v_blue_g01_c09.mp4"
    return {path.name: path.read_bytes() for path in [*good, bad]}


@pytest.fixture(scope="module")
def bucket(clips: dict[str, bytes]) -> Iterator[str]:
    """Of a local S3 server: clips below in/, in natural order, and what is no video."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    session = pytest.importorskip("botocore.session")

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        secrets = {"AWS_ACCESS_KEY_ID": "public-name", "AWS_SECRET_ACCESS_KEY": "t0p-s3cret"}
        places = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (secrets | places).items():
            patch.setenv(name, value)
        patch.setattr("pipeline.data.remote.systems._made", {})
        client = session.get_session().create_client("s3")
        client.create_bucket(Bucket="films")
        names = list(clips)
        keys = {f"in/{n + 1}/{name}": clips[name] for n, name in enumerate(names)}
        keys |= {"in/notes.txt": b"no video", "in/.hidden/x.mp4": b"", "in/10/z.mp4": clips[names[0]], "top.mp4": b"x"}
        for key, content in keys.items():
            client.put_object(Bucket="films", Key=key, Body=content)
        yield "films"
    server.stop()


def answers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what differs from place to place and from time to time."""
    return [
        {key: value for key, value in row.items() if key not in ("path", "seconds") and value is not None}
        for row in rows
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_files_elsewhere_get_the_rows_of_the_same_files_here(
    predictor: Predictor, site: Site, clips: dict[str, bytes], bucket: str, tmp_path: Path, workers: int
) -> None:
    for name, content in clips.items():
        (tmp_path / name).write_bytes(content)
    names = list(clips)
    site.files, site.moods = dict(clips), {names[1]: ["503"], names[2]: ["cut"]}
    web = [f"{site.address}/{name}" for name in names]
    (tmp_path / "list.txt").write_text("\n".join([*web, names[0], f"{site.address}/gone.mp4", "s3://films/gone.mp4"]))
    here = classify(predictor, [str(tmp_path / name) for name in names], workers=0).table
    sources = ["s3://films/in/", str(tmp_path / "list.txt")]
    found = classify(predictor, sources, tmp_path / "t.csv", workers=workers, fetch=QUICK, html=tmp_path / "t.html")
    elsewhere, last = found.table[: len(names)], found.table[len(names)]
    assert [row["path"] for row in elsewhere] == [f"s3://films/in/{n + 1}/{name}" for n, name in enumerate(names)]
    assert answers(elsewhere) == answers(here) and answers([last]) == answers(here[:1])
    assert last["path"] == "s3://films/in/10/z.mp4"
    rest = found.table[len(names) + 1 :]
    assert [row["path"] for row in rest[: len(names)]] == web and answers(rest[: len(names)]) == answers(here)
    assert rest[-3]["status"] == "ok" and [row["status"] for row in rest[-2:]] == ["not found"] * 2
    page = (tmp_path / "t.html").read_text()
    assert page.count("/9j/") >= found.ok  # each has its picture
    assert not list((Path(cache_dir()) / "fetched").glob("*/*"))


def test_prefixes_globs_and_objects(bucket: str, clips: dict[str, bytes]) -> None:
    count = len(clips)

    def found(*sources: str) -> list[str]:
        return find_files(sources, fetch=QUICK)

    assert len(found("s3://films/in")) == len(found("s3://films/in/")) == count + 1
    assert found("s3://films") == [*found("s3://films/in"), "s3://films/top.mp4"]
    assert found("s3://films/*.mp4") == found("s3://films/top.mp4") == ["s3://films/top.mp4"]
    assert found("s3://films/in/1*/*") == [found("s3://films/in/1/")[0], "s3://films/in/10/z.mp4"]
    assert found("s3://films/gone.mp4") == ["s3://films/gone.mp4"]  # a row says so
    assert found("s3://films/in/.hidden/") == ["s3://films/in/.hidden/x.mp4"]
    assert found("s3://films/in/notes.txt") == ["s3://films/in/notes.txt"]
    for nothing in ("s3://films/none/", "s3://films/*.avi", "s3://films/none"):
        with pytest.raises(DataError, match=r"s3://films/.*: no video there"):
            found(nothing)
    with pytest.raises(DataError, match="s3://nowhere/: not found"):
        found("s3://nowhere/")


def test_signatures_and_passwords_reach_neither_table_nor_journal_nor_messages(
    predictor: Predictor, site: Site, clips: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    name = next(iter(clips))
    site.files[name] = clips[name]
    host = site.address.removeprefix("http://")
    good = f"http://me:pa55word@{host}/{name}?id=7&X-Amz-Signature=5ecret%2Fx%3D"
    gone = f"http://{host}/gone.mp4?sig=5ecret"
    seen: list[bytes] = []
    remove = Journal.remove

    def kept(journal: Any) -> None:
        seen.append(journal.path.read_bytes())
        remove(journal)

    monkeypatch.setattr(Journal, "remove", kept)
    result = classify(predictor, [good, gone], tmp_path / "t.jsonl", workers=0, fetch=QUICK, html=tmp_path / "t.html")
    assert [row["status"] for row in result.table] == ["ok", "not found"]
    assert result.table[0]["path"] == f"http://***@{host}/{name}?id=7&X-Amz-Signature=***"
    printed = capfd.readouterr()
    said = [printed.out, printed.err, caplog.text, (tmp_path / "t.jsonl").read_text(), seen[0].decode()]
    said.append((tmp_path / "t.html").read_text())
    assert all("5ecret" not in text and "pa55word" not in text for text in said) and "gone.mp4" in printed.err
    assert any(headers.get("Authorization", "").startswith("Basic ") for headers in site.headers)


def test_an_interrupted_run_goes_on_also_with_newer_signatures(
    predictor: Predictor, site: Site, clips: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files = dict(clips)
    out, old, new = tmp_path / "t.jsonl", *([f"{site.address}/{n}?sig={s}" for n in clips] for s in ("old", "new"))
    whole = classify(predictor, old, workers=0, fetch=QUICK).table
    site.asked.clear()
    append = Journal.append

    def interrupted(journal: Any, row: dict[str, Any]) -> None:
        append(journal, row)
        if journal.done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            classify(predictor, old, out, workers=0, fetch=QUICK)
    assert len(out.read_text().splitlines()) == 3
    site.asked.clear()
    classify(predictor, new, out, workers=0, fetch=QUICK)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert answers(rows) == answers(whole) and set(site.asked) == set(list(clips)[3:])


def test_what_may_be_shown_of_an_address() -> None:
    assert shown("/a/b?c=d@e.mp4") == "/a/b?c=d@e.mp4"
    assert shown("https://u:p@h:1/a@b.mp4?v=1&token=x&y#frag") == "https://***@h:1/a@b.mp4?v=1&token=***&***"
    assert shown("https://h?token=x") == "https://h?token=***"
    assert shown("s3://bucket/a?b#c.mp4") == "s3://bucket/a?b#c.mp4"


def test_sources_that_cannot_be_are_refused_in_one_line() -> None:
    for source, said in {
        "https://host/folder/": "nobody lists folders over HTTP",
        "https://host/*.mp4": "nobody lists folders over HTTP",
        "https:///a.mp4": "it is no address",
    }.items():
        with pytest.raises(DataError, match=said):
            find_files([source], fetch=QUICK)
    with pytest.raises(ConfigError, match="only s3://"):
        find_files(["file:///etc/passwd"], fetch=QUICK)
    with pytest.raises(DataError, match="only classify reads files elsewhere"):
        find_files(["https://host/a.mp4"])


def test_files_of_this_machine_load_nothing_of_it() -> None:
    code = "import sys, pipeline.stages.find, pipeline.addresses; print([m for m in sys.modules if m in " \
        "('fsspec', 'aiohttp', 's3fs', 'pipeline.data.remote')])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_data_sets_elsewhere_are_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"data.root https://\*\*\*@host/x lies elsewhere"):
        discover(DataConfig(root="https://me:pw@host/x"))


def test_the_command_in_the_run_shows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.tracking.surroundings import source_tags

    monkeypatch.setattr(sys, "argv", ["video-lstm", "classify", "m", "https://t0ken@host/a.mp4?sig=5ecret&id=7"])
    assert source_tags()["mlflow.source.name"] == "video-lstm classify m 'https://***@host/a.mp4?sig=***&id=7'"


def test_an_object_whose_reading_breaks_off_goes_on_there_and_one_that_changes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a storage in memory that has the part of fsspec's interface which every object storage goes through."""
    from pipeline.data.remote import part, systems

    content = bytes(range(256)) * 40
    asked: list[int] = []

    class Source(io.BytesIO):
        def __init__(self, content: bytes) -> None:
            super().__init__(content)
            self.size, self.details = len(content), {"etag": "1"}

        def read(self, size: int | None = -1) -> bytes:
            asked.append(self.tell())
            if len(asked) == 2:
                raise OSError(5, "a text with a s3cret")
            return super().read(4000)

    class Storage:
        def open(self, address: str, mode: str, **_: Any) -> Source:
            return Source(content[:-1] if "changed" in address and asked else content)

    monkeypatch.setattr(systems, "_make", lambda kind, stall: Storage())
    monkeypatch.setattr(systems, "_made", {})
    monkeypatch.setattr(part, "BACKOFF", 0.01)
    monkeypatch.setattr("pipeline.data.remote.fetcher.check_schemes", lambda paths: None)
    with closing(Fetcher(["gs://bucket/a.mp4"], QUICK)) as fetcher:
        assert Path(str(fetcher[0])).read_bytes() == content and asked == [0, 4000, 4000, 8000]
    asked.clear()
    with closing(Fetcher(["gs://bucket/changed.mp4"], QUICK)) as fetcher:
        assert str(fetcher[0]) == "gs://bucket/changed.mp4: not readable (it changed while it was fetched)"
