#!/usr/bin/env -S python3
"""Download a public dataset: UCF101, UCF11, HMDB51 or KTH.

    python scripts/datasets/download.py ucf101 DIR

It goes on where it was cut off, checks what it got, unpacks it, and says what to type next. RAR archives need unrar,
7z or bsdtar. The checksums of these files are not published where we could check them, so none is written down here:
the first download records its own in FILE.sha256, and every later run compares with that.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from fetch import obtain, write_text
from filelock import FileLock, Timeout

from pipeline.errors import DataError, UserError
from pipeline.stages.progress import say


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes:
        url: where it is published.
        into: folder below DIR that it is unpacked in; None: it is no archive.
        nested: it holds further archives, which are unpacked in the same folder and removed.
        sha256: its digest where that is known.
    """

    url: str
    into: str | None = ""
    nested: bool = False
    sha256: str | None = None

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Dataset:
    """A dataset: its page with the terms, whom to cite, its files, and the folder of its clips below DIR."""

    page: str
    cite: str
    clips: str
    files: tuple[File, ...]


UCF = "https://www.crcv.ucf.edu/data"
HMDB = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10"
KTH = "https://www.csc.kth.se/cvap/actions"
DATASETS = {
    "ucf101": Dataset(
        f"{UCF}/UCF101.php",
        "Soomro, Zamir, Shah: UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild, 2012",
        "UCF-101",
        (File(f"{UCF}/UCF101/UCF101TrainTestSplits-RecognitionTask.zip"), File(f"{UCF}/UCF101/UCF101.rar")),
    ),
    "ucf11": Dataset(
        f"{UCF}/UCF_YouTube_Action.php",
        "Liu, Luo, Shah: Recognizing Realistic Actions from Videos in the Wild, CVPR 2009",
        "UCF11_updated_mpg",
        (File(f"{UCF}/UCF11_updated_mpg.rar"),),
    ),
    "hmdb51": Dataset(
        "https://serre.lab.brown.edu/hmdb51.html",
        "Kuehne, Jhuang, Garrote, Poggio, Serre: HMDB: A Large Video Database for Human Motion Recognition, ICCV 2011",
        "hmdb51_org",
        (File(f"{HMDB}/test_train_splits.rar"), File(f"{HMDB}/hmdb51_org.rar", into="hmdb51_org", nested=True)),
    ),
    "kth": Dataset(
        f"{KTH}/",
        "Schuldt, Laptev, Caputo: Recognizing Human Actions: A Local SVM Approach, ICPR 2004",
        "kth",
        (
            File(f"{KTH}/00sequences.txt", into=None),
            *(
                File(f"{KTH}/{name}.zip", into=f"kth/{name}")
                for name in ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
            ),
        ),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Parse, download, unpack; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(DATASETS))
    parser.add_argument("folder", type=Path, metavar="DIR", help="where it goes; made if it is not there")
    parser.add_argument("--url", help="a mirror: the address of a folder that holds the files under their names")
    options = parser.parse_args(arguments)
    try:
        download(DATASETS[options.dataset], options.folder, options.url)
    except UserError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    return 0


def download(dataset: Dataset, folder: Path, mirror: str | None = None) -> None:
    """Fetch, check and unpack every file, then print the next command.

    Raises:
        DataError: a file cannot be had, is not what it was, or cannot be unpacked.
    """
    say(f"terms of use: {dataset.page}")
    say(f"please cite: {dataset.cite}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock", timeout=0):
            for file in dataset.files:
                url = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url
                digest = obtain(url, folder / file.name, file.sha256, double=file.into is not None)
                if file.into is not None:
                    unpack_once(folder / file.name, folder / file.into, digest, file.nested)
    except Timeout:
        raise DataError(f"{folder} is being downloaded to by another process; wait for it") from None
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror or error}; is the disk full?") from error
    print(f"video-lstm ingest {folder / dataset.clips}")


def unpack_once(archive: Path, into: Path, digest: str, nested: bool) -> None:
    """Unpack, unless this very archive was unpacked before; an interrupted unpacking is done again."""
    mark = archive.with_name(archive.name + ".unpacked")
    if mark.exists() and mark.read_text() == digest:
        say(f"{archive.name}: unpacked already")
        return
    say(f"{archive.name}: unpacking")
    unpack(archive, into)
    if nested:
        for inner in sorted(into.glob("*.rar")):
            unpack(inner, into)
            inner.unlink()
    write_text(mark, digest)


def unpack(archive: Path, into: Path) -> None:
    """Unpack beside the place, look at what came out, then move it there: nothing lands outside.

    Raises:
        DataError: damaged, a name or link that leads outside, or no program for RAR.
    """
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=into) as name:
        fresh = Path(name)
        if archive.suffix.lower() == ".zip":
            _unzip(archive, fresh)
        else:
            _unrar(archive, fresh)
        for current, folders, files in os.walk(fresh):
            for item in (Path(current) / entry for entry in (*folders, *files)):
                if item.is_symlink():
                    raise DataError(f"{archive} holds the link {item.relative_to(fresh)}; it is not unpacked")
        for current, _, files in os.walk(fresh):
            place = into / Path(current).relative_to(fresh)
            place.mkdir(parents=True, exist_ok=True)
            for entry in files:
                (Path(current) / entry).replace(place / entry)


def _unzip(archive: Path, into: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            for item in packed.infolist():
                _check_name(archive, item.filename)
                if stat.S_ISLNK(item.external_attr >> 16):
                    raise DataError(f"{archive} holds the link {item.filename}; it is not unpacked")
            packed.extractall(into)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive} is damaged ({error}); remove it to fetch it again") from error


def _unrar(archive: Path, into: Path) -> None:
    """By whichever program is there: Python has none for RAR."""
    packed, place = os.path.abspath(archive), os.path.abspath(into)
    programs = {
        "unrar": (["lb", "--", packed], ["x", "-idq", "-o+", "-p-", "--", packed, place + os.sep]),
        "7z": (["l", "-ba", "-slt", "--", packed], ["x", "-y", "-p-", f"-o{place}", "--", packed]),
        "bsdtar": (["-tf", packed], ["-x", "-f", packed, "-C", place]),
    }
    program = next((name for name in programs if shutil.which(name)), None)
    if program is None:
        raise DataError(
            f"{archive} needs unrar, 7z or bsdtar, and none is installed; on Debian and Ubuntu:"
            " apt install libarchive-tools (bsdtar), or 7zip, or unrar; then run the same command again"
        )
    listing, extraction = programs[program]
    lines = _call(archive, [program, *listing]).splitlines()
    names = [line.removeprefix("Path = ") for line in lines if program != "7z" or line.startswith("Path = ")]
    for name in names:
        _check_name(archive, name)
    _call(archive, [program, *extraction])


def _call(archive: Path, command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())[-200:]
        raise DataError(f"{command[0]} cannot unpack {archive} ({said}); remove it to fetch it again")
    return done.stdout.decode("utf-8", "replace")


def _check_name(archive: Path, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"^[A-Za-z]:", name):
        raise DataError(f"{archive} holds '{name}', which leads outside its folder; it is not unpacked")


if __name__ == "__main__":
    sys.exit(main())
