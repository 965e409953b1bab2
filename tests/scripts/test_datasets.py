"""The dataset downloader against a server on loopback that behaves as badly as real ones do."""

from __future__ import annotations

import hashlib
import http.server
import importlib
import io
import re
import stat
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config import DataConfig
from pipeline.data.layouts import discover
from pipeline.errors import DataError

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "datasets"


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[Any, Any]]:
    """scripts/datasets/download.py and fetch.py, imported as Python does that runs the former."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("download"), importlib.import_module("fetch")
    for name in ("download", "fetch"):
        sys.modules.pop(name, None)


class Server:
    """One file on loopback. Each request takes the next of `faults`; after them it behaves."""

    def __init__(self) -> None:
        self.content = bytes(range(256)) * 4000
        self.tag: str | None = '"one"'
        self.modified: str | None = None
        self.ranges = True
        self.length = True
        self.faults: list[str] = []
        self.requests: list[dict[str, str]] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(request.headers))
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            request.send_response(int(fault))
            request.send_header("Retry-After", "0" if fault == "503" else formatdate(time.time() - 5, usegmt=True))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if fault == "silent":
            time.sleep(1.0)
            request.close_connection = True
            return
        if "change" in fault:
            self.content, self.tag = self.content[::-1], '"two"'
        wanted = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = request.headers.get("If-Range") in (self.tag, self.modified, None) or fault == "liar"
        start = int(wanted[1]) if wanted and self.ranges and same else 0
        if start > len(self.content):
            request.send_response(416)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            shift = 1 if fault == "shifted" else 0
            request.send_header("Content-Range", f"bytes {start + shift}-{len(self.content) - 1}/{len(self.content)}")
        if self.tag:
            request.send_header("ETag", '"other"' if fault == "liar" else self.tag)
        if self.modified:
            request.send_header("Last-Modified", self.modified)
        if self.length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if "cut" in fault else body)
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture
def fetch(modules: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(modules[1], "WAIT", 0.01)
    return modules[1]


def get(fetch: Any, server: Server, folder: Path, sha256: str | None = None) -> Path:
    target = folder / "file.bin"
    digest = fetch.obtain(f"{server.url}/file.bin", target, sha256, double=False)
    assert target.read_bytes() == server.content and digest == hashlib.sha256(server.content).hexdigest()
    assert not list(folder.glob("*.part*")) and not list(folder.glob("*.tmp"))
    return target


def test_a_file_comes_whole_and_its_checksum_is_recorded(
    fetch: Any, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = get(fetch, server, tmp_path)
    digest = hashlib.sha256(server.content).hexdigest()
    assert (tmp_path / "file.bin.sha256").read_text() == f"{digest}  file.bin\n"
    assert "not known beforehand" in capsys.readouterr().err
    get(fetch, server, tmp_path)
    assert len(server.requests) == 1 and "as recorded" in capsys.readouterr().err
    target.write_bytes(b"x")
    with pytest.raises(DataError, match="has changed"):
        get(fetch, server, tmp_path)
    target.unlink()
    server.content = b"another file"
    with pytest.raises(DataError, match=r"file was removed; remove .*sha256 if it was published anew"):
        get(fetch, server, tmp_path)
    assert not target.exists()


def test_a_wrong_checksum_is_an_error_and_the_file_goes(fetch: Any, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gave sha256"):
        get(fetch, server, tmp_path, "0" * 64)
    assert list(tmp_path.iterdir()) == []
    get(fetch, server, tmp_path, hashlib.sha256(server.content).hexdigest())


@pytest.mark.parametrize("modified", [False, True])
def test_cut_connections_are_gone_on_with(fetch: Any, server: Server, tmp_path: Path, modified: bool) -> None:
    if modified:
        server.tag, server.modified = 'W/"weak"', formatdate(1e9, usegmt=True)
    server.faults = ["cut", "cut", "cut"]
    get(fetch, server, tmp_path)
    half = len(server.content) // 2
    assert [request.get("Range") for request in server.requests] == [
        None, f"bytes={half}-", f"bytes={half + half // 2}-", f"bytes={half + half // 2 + half // 4}-",
    ]  # fmt: skip
    assert {request.get("If-Range") for request in server.requests[1:]} == {server.modified if modified else '"one"'}


def test_a_killed_download_is_gone_on_with_by_the_next_process(fetch: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(server.content[:1000])
    (tmp_path / "file.bin.part.json").write_text('{"version": "\\"one\\""}')
    get(fetch, server, tmp_path)
    assert server.requests[0]["Range"] == "bytes=1000-"


@pytest.mark.parametrize("note", [None, "", "{", "[]", '{"version": 3}', '{"version": ""}'])
def test_a_part_of_an_unknown_version_is_not_gone_on_with(
    fetch: Any, server: Server, tmp_path: Path, note: str | None
) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"of something else")
    if note is not None:
        (tmp_path / "file.bin.part.json").write_text(note)
    get(fetch, server, tmp_path)
    assert "Range" not in server.requests[0]


@pytest.mark.parametrize("faults", [["cut", "change"], ["cut", "liar"], ["cut", "shifted"], ["cut", "change cut"]])
def test_parts_of_two_versions_are_never_joined(fetch: Any, server: Server, tmp_path: Path, faults: list[str]) -> None:
    server.faults = list(faults)
    get(fetch, server, tmp_path)
    assert server.faults == []


def test_a_server_without_ranges_starts_anew(fetch: Any, server: Server, tmp_path: Path) -> None:
    server.ranges, server.faults = False, ["cut"]
    get(fetch, server, tmp_path)
    assert "Range" in server.requests[1]


def test_a_server_that_names_no_version_starts_anew(fetch: Any, server: Server, tmp_path: Path) -> None:
    server.tag, server.faults = None, ["cut"]
    get(fetch, server, tmp_path)
    assert "Range" not in server.requests[1]


def test_a_part_that_is_too_long_is_dropped(fetch: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(server.content + b"x")
    (tmp_path / "file.bin.part.json").write_text('{"version": "\\"one\\""}')
    get(fetch, server, tmp_path)
    assert len(server.requests) == 2


def test_a_length_that_is_not_told(
    fetch: Any, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.length = False
    get(fetch, server, tmp_path)
    assert "cannot be told whole from cut off" in capsys.readouterr().err


def test_failures_that_pass_are_tried_again(fetch: Any, server: Server, tmp_path: Path) -> None:
    server.faults = ["503", "500", "429", "cut", "502", "408"]
    get(fetch, server, tmp_path)
    assert server.faults == [] and len(server.requests) == 7


def test_a_server_that_falls_silent(
    fetch: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    server.faults = ["silent"]
    get(fetch, server, tmp_path)
    assert len(server.requests) == 2


def test_failures_that_stay_are_one_line(fetch: Any, server: Server, tmp_path: Path) -> None:
    server.faults = ["404"]
    with pytest.raises(DataError, match="answers 404"):
        get(fetch, server, tmp_path)
    assert len(server.requests) == 1
    server.faults = ["503"] * 99
    with pytest.raises(DataError, match="answers 503, 6 times in a row"):
        get(fetch, server, tmp_path)
    assert len(server.requests) == 7
    with pytest.raises(DataError, match="no connection"):
        fetch.obtain("http://127.0.0.1:1/file.bin", tmp_path / "file.bin", None, False)
    with pytest.raises(DataError, match="no http or https address"):
        fetch.obtain("file:///etc/hostname", tmp_path / "file.bin", None, False)


def test_a_full_disk_is_seen_before(
    fetch: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_500_000))
    get(fetch, server, tmp_path)  # 1.02 MB
    with pytest.raises(DataError, match="unpacked about as much again"):
        fetch.obtain(f"{server.url}/two.bin", tmp_path / "two.bin", None, True)
    assert not (tmp_path / "two.bin.part").exists()


def packed(names: dict[str, str], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in names.items():
            archive.writestr(name, text)
        if link:
            item = zipfile.ZipInfo(link)
            item.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(item, "/etc")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt"])
def test_names_that_lead_outside_are_refused(modules: tuple[Any, Any], tmp_path: Path, name: str) -> None:
    archive = tmp_path / "in" / "a.zip"
    archive.parent.mkdir()
    archive.write_bytes(packed({"fine.txt": "1", name: "2"}))
    with pytest.raises(DataError, match="leads outside"):
        modules[0].unpack(archive, tmp_path / "in" / "place")
    assert list((tmp_path / "in" / "place").iterdir()) == [] and not (tmp_path / "out.txt").exists()


def test_links_and_damage_are_refused(modules: tuple[Any, Any], tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(packed({"fine.txt": "1"}, link="way"))
    with pytest.raises(DataError, match="holds the link way"):
        modules[0].unpack(archive, tmp_path / "place")
    for content in (b"no archive", packed({"fine.txt": "1" * 99})[:-30]):
        archive.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            modules[0].unpack(archive, tmp_path / "place")
    assert list((tmp_path / "place").iterdir()) == []


UNRAR = """#!{python}
import sys, zipfile, pathlib
command, archive = sys.argv[1], [a for a in sys.argv[1:] if a.endswith(".rar")][0]
try:
    packed = zipfile.ZipFile(archive)
except zipfile.BadZipFile:
    sys.exit("not a RAR archive")
if command == "lb":
    print("\\n".join(packed.namelist()))
else:
    place = pathlib.Path(sys.argv[-1])
    for name in packed.namelist():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(packed.read(name))
"""


@pytest.fixture
def unrar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that takes unrar's arguments, and zip archives called .rar."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "unrar").write_text(UNRAR.format(python=sys.executable))
    (programs / "unrar").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))


def test_rar_needs_a_program(modules: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match="needs unrar, 7z or bsdtar, and none is installed"):
        modules[0].unpack(tmp_path / "a.rar", tmp_path / "place")


@pytest.mark.usefixtures("unrar")
def test_rar_by_a_program(modules: tuple[Any, Any], tmp_path: Path) -> None:
    archive = tmp_path / "a.rar"
    archive.write_bytes(packed({"../out.txt": "1"}))
    with pytest.raises(DataError, match="leads outside"):
        modules[0].unpack(archive, tmp_path / "place")
    archive.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"unrar cannot unpack .*not a RAR archive"):
        modules[0].unpack(archive, tmp_path / "place")


def serve_files(server: Server, files: dict[str, bytes]) -> None:
    """Let the server give several files, by their names."""
    answer = server.answer

    def by_name(request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.path.rsplit("/", 1)[1]
        server.content, server.tag = files[name], f'"{name}"'
        answer(request)

    server.answer = by_name  # type: ignore[method-assign]


@pytest.mark.usefixtures("unrar")
def test_hmdb51_from_mirror_to_entries(
    modules: tuple[Any, Any], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Archives in an archive; the clips and the official lists end where the layout finds them."""
    inner = {
        f"{label}.rar": packed({f"{label}/F{n}_{label}_{n}.avi": f"{label}{n}" for n in range(3)})
        for label in ("hug", "pour")
    }
    lists = {
        f"testTrainMulti_7030_splits/{label}_test_split1.txt": "".join(
            f"F{n}_{label}_{n}.avi {code} \n" for n, code in enumerate("120")
        )
        for label in ("hug", "pour")
    }
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        for name, content in inner.items():
            outer.writestr(name, content)
    files = {"hmdb51_org.rar": (tmp_path / "outer.zip").read_bytes(), "test_train_splits.rar": packed(lists)}
    serve_files(server, files)
    folder = tmp_path / "sets" / "hmdb"
    assert modules[0].main(["hmdb51", str(folder), "--url", server.url + "/"]) == 0
    out = capsys.readouterr()
    assert out.out == f"video-lstm ingest {folder / 'hmdb51_org'}\n" and "please cite" in out.err
    listing = discover(DataConfig(root=str(folder / "hmdb51_org")))
    assert listing.kind == "hmdb51" and len(listing.entries) == 4 and len(listing.unused) == 2
    assert listing.ignored == []
    assert modules[0].main(["hmdb51", str(folder), "--url", server.url]) == 0
    assert len(server.requests) == 2 and capsys.readouterr().err.count("unpacked already") == 2


def test_kth_from_mirror_to_entries(modules: tuple[Any, Any], server: Server, tmp_path: Path) -> None:
    names = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
    files = {f"{name}.zip": packed({f"person{n:02d}_{name}_d1_uncomp.avi": "" for n in (11, 2)}) for name in names}
    files["00sequences.txt"] = "".join(
        f"person{n:02d}_{name}_d1 frames 1-9, 10-20\n" for name in names for n in (11, 2)
    ).encode()
    serve_files(server, files)
    assert modules[0].main(["kth", str(tmp_path), "--url", server.url]) == 0
    listing = discover(DataConfig(root=str(tmp_path / "kth")))
    assert (listing.kind, len(listing.entries), listing.notes) == ("kth", 24, [])


def test_the_command_line_says_what_is_wrong(
    modules: tuple[Any, Any], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = ["404"]
    assert modules[0].main(["ucf11", str(tmp_path), "--url", server.url]) == 2
    assert f"error: {server.url}/UCF11_updated_mpg.rar: the server answers 404" in capsys.readouterr().err.replace(
        "\n", " "
    )


def test_two_downloads_to_one_folder_do_not_mix(modules: tuple[Any, Any], server: Server, tmp_path: Path) -> None:
    with modules[0].FileLock(tmp_path / ".download.lock"), pytest.raises(DataError, match="another process"):
        modules[0].download(modules[0].DATASETS["ucf11"], tmp_path, server.url)


def test_every_dataset_is_complete(modules: tuple[Any, Any]) -> None:
    for dataset in modules[0].DATASETS.values():
        names = [file.name for file in dataset.files]
        assert len(names) == len(set(names)) and dataset.page.startswith("https://")
        assert all(
            name.endswith((".zip", ".rar")) or file.into is None
            for name, file in zip(names, dataset.files, strict=True)
        )
