from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Reason, VideoError
from pipeline.stages.serve.allowed import REFUSED, Allowed, Place, may_connect, parse


def test_nothing_is_allowed_by_default(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    for ask in (lambda: parse("").file(str(tmp_path / "a.mp4")), lambda: parse("").url("https://example.com/a.mp4")):
        with pytest.raises(VideoError) as caught:
            ask()
        assert (caught.value.reason, caught.value.detail) == (Reason.NOT_READABLE, REFUSED)


def test_the_list_has_folders_and_addresses_with_and_without_ports() -> None:
    text = "/data:https://host/:http://host:8080/clips:/other:https://[::1]:9/x:https://plain"
    allowed = parse(text)
    assert allowed.folders == ("/data", "/other")
    assert allowed.places == (
        Place("https", "host", 443, "/"),
        Place("http", "host", 8080, "/clips"),
        Place("https", "::1", 9, "/x"),
        Place("https", "plain", 443, "/"),
    )


@pytest.mark.parametrize("text", ["clips", "ftp://host/", "file:///data", "https://", "/data:relative"])
def test_an_entry_that_is_neither_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="VIDEO_LSTM_SERVE_ALLOW"):
        parse(text)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder that may be read, and one beside it whose name begins alike."""
    for name in ("clips", "clips-secret", "clips/below"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_bytes(b"x")
    (tmp_path / "clips/out.mp4").symlink_to(tmp_path / "clips-secret/a.mp4")
    (tmp_path / "clips/link").symlink_to(tmp_path / "clips-secret")
    (tmp_path / "clips/in.mp4").symlink_to(tmp_path / "clips/below/a.mp4")
    os.mkfifo(tmp_path / "clips/pipe")
    return tmp_path


def test_files_below_an_allowed_folder_are_read_and_links_within_it(shelf: Path) -> None:
    allowed = parse(str(shelf / "clips"))
    assert allowed.file(str(shelf / "clips/a.mp4")) == str((shelf / "clips/a.mp4").resolve())
    for path in ("clips/below/a.mp4", "clips/in.mp4", "clips/below/../below/a.mp4"):
        assert allowed.file(str(shelf / path)) == str((shelf / "clips/below/a.mp4").resolve())


@pytest.mark.parametrize(
    "path",
    ["clips-secret/a.mp4", "clips/../clips-secret/a.mp4", "clips/out.mp4", "clips/link/a.mp4", "nowhere/b.mp4",
     "clips/link/../clips-secret/a.mp4", "clips/a.mp4\0.png"],
)  # fmt: skip
def test_what_leads_out_of_it_is_refused_whether_it_exists_or_not(shelf: Path, path: str) -> None:
    with pytest.raises(VideoError) as caught:
        parse(str(shelf / "clips")).file(f"{shelf}/{path}")
    assert caught.value.detail == REFUSED


def test_relative_paths_are_refused(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf)
    with pytest.raises(VideoError, match="not allowed"):
        parse(str(shelf / "clips")).file("clips/a.mp4")


@pytest.mark.parametrize(("path", "reason"), [("clips/pipe", Reason.NOT_A_VIDEO), ("clips", Reason.NOT_A_VIDEO),
                                              ("clips/none.mp4", Reason.NOT_FOUND)])  # fmt: skip
def test_what_is_no_file_there_says_so(shelf: Path, path: str, reason: Reason) -> None:
    with pytest.raises(VideoError) as caught:
        parse(str(shelf / "clips")).file(str(shelf / path))
    assert caught.value.reason is reason


PLACES = parse("https://host/clips:http://127.0.0.1:8000/")


@pytest.mark.parametrize(
    "address",
    ["https://host/clips/a.mp4", "https://host:443/clips/a.mp4?x=1", "https://HOST/clips/a%20b.mp4", "https://host/clips",
     "http://127.0.0.1:8000/x"],
)  # fmt: skip
def test_addresses_below_an_allowed_one(address: str) -> None:
    assert PLACES.url(address).hostname in ("host", "127.0.0.1")


@pytest.mark.parametrize(
    "address",
    ["http://host/clips/a.mp4", "https://host/clips-secret/a.mp4", "https://host/clips/../a.mp4",
     "https://host/clips/%2e%2e/a.mp4", "https://host/clips/%252e%252e/a.mp4", "https://host/clips\\..\\a.mp4",
     "https://host.evil/clips/a.mp4", "https://evil/https://host/clips/a.mp4", "https://host@evil/clips/a.mp4",
     "https://me:secret@host/clips/a.mp4", "https://host:8443/clips/a.mp4", "file:///etc/passwd", "ftp://host/clips/a",
     "https://[host/clips", "https://host/clips/a\r\nX: y", "https://h\u00f6st/clips/a.mp4", "https:///clips/a.mp4",
     "concat:/etc/passwd|https://host/clips/a", "https://host:99999/clips/a"],
)  # fmt: skip
def test_any_other_address_is_refused(address: str) -> None:
    with pytest.raises(VideoError) as caught:
        PLACES.url(address)
    assert caught.value.detail == REFUSED


@pytest.mark.parametrize(
    ("address", "host", "may"),
    [("93.184.216.34", "host", True), ("10.0.0.5", "host", True), ("169.254.169.254", "host", False),
     ("169.254.169.254", "169.254.169.254", False), ("fe80::1%eth0", "host", False),
     ("::ffff:169.254.1.1", "host", False),
     ("2002:a9fe:a9fe::1", "host", False), ("64:ff9b::a9fe:a9fe", "host", False), ("127.0.0.1", "host", False),
     ("::1", "host", False), ("::ffff:127.0.0.1", "host", False), ("127.0.0.1", "localhost", True),
     ("127.0.0.1", "127.0.0.1", True), ("::1", "::1", True), ("0.0.0.0", "host", False), ("224.0.0.1", "host", False),
     ("240.0.0.1", "host", False)],
)  # fmt: skip
def test_where_a_name_may_lead(address: str, host: str, may: bool) -> None:
    assert may_connect(address, host) is may


def test_an_empty_list_is_what_it_is() -> None:
    assert Allowed() == parse("") == parse(":")
