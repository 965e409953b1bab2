"""What was found in every file that was ever examined, remembered by content, in one SQLite file.

Two questions are answered without opening a video: what did this path hold when it was last read (as git's index does,
by size, times and inode: an unchanged file is not read again), and what does this content hold (so a file that was
moved or copied is only hashed).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.video.images import folder_images, suffix

NAME = "findings.sqlite"

OK = "ok"

SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again within one tick of the file system's clock:
its path is not trusted the next time, as in git's "racily clean" entries."""

BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS places (path BLOB PRIMARY KEY, signature TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS findings (
    digest TEXT, kind TEXT, made_by TEXT, record TEXT NOT NULL, times BLOB NOT NULL, fingerprint BLOB NOT NULL,
    PRIMARY KEY (digest, kind, made_by)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Finding:
    """What one source holds, or why it holds nothing.

    Attributes:
        status: "ok" or a `Reason`; detail: what else is known, may be empty.
        digest: sha256 of the content in hex; empty where there is none to read.
        times: float64 (N,) seconds of every decoded frame; empty where there is none.
        damage: what is missing of a file that gives only a part of its frames; empty for a whole one.
        marks: what is unusual about it, see `video.reader.VideoInfo`.
        fingerprint: what it looks like, see `data.fingerprint`.
    """

    status: str
    detail: str = ""
    digest: str = ""
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    width: int = 0
    height: int = 0
    codec: str = ""
    damage: str = ""
    marks: tuple[str, ...] = ()
    fingerprint: bytes = b""


def kind_of(path: str) -> str:
    """Under another suffix the same bytes may be read otherwise, so it is part of what a finding is kept under."""
    return "folder" if os.path.isdir(path) else suffix(path)


def signature(path: str) -> str:
    """What changes whenever a file (or an image of a folder) is written or replaced; no content is read.

    Raises:
        OSError, VideoError: there is nothing to look at.
    """
    if not os.path.isdir(path):
        return _stat(path)
    parts = [f"{os.path.basename(image)}:{_stat(image)}" for image in folder_images(path)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _stat(path: str) -> str:
    found = os.stat(path)
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}:{found.st_dev}"


def settled(path: str) -> bool:
    """Whether the last change of a file, or of any image of a folder, is long enough ago."""
    files = folder_images(path) if os.path.isdir(path) else [path]
    return all(time.time_ns() - os.stat(file).st_ctime_ns > SETTLED_NS for file in files)


class Findings:
    """The remembered findings of one cache folder.

    A damaged store is begun anew; one that cannot be used (a read-only folder) is replaced by one that lasts as long
    as this process: a cache that fails costs time and nothing else.

    Args:
        folder: the cache folder; made if needed.
        made_by: the decoders in use; findings of others are not seen.
    """

    def __init__(self, folder: str, made_by: str) -> None:
        self.made_by = made_by
        path = Path(folder) / NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._connect(path)
        except (OSError, sqlite3.Error):
            self._db = _opened(Path(_fallback().name) / NAME)

    def _connect(self, path: Path) -> sqlite3.Connection:
        try:
            return _opened(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # what lies there is no database: it can be made again
            for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                name.unlink(missing_ok=True)
            return _opened(path)

    def close(self) -> None:
        """Write what is not written yet and let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.commit()
        self._db.close()

    def __enter__(self) -> Findings:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def at(self, path: str) -> Finding | None:
        """The finding of a path whose file is the one that was read last; None where it is new or has changed."""
        try:
            rows = self._db.execute(
                "SELECT p.signature, f.digest, f.record, f.times, f.fingerprint FROM places p JOIN findings f"
                " ON f.digest = p.digest AND f.kind = ? AND f.made_by = ? WHERE p.path = ?",
                (kind_of(path), self.made_by, _key(path)),
            ).fetchall()
            if not rows or rows[0][0] != signature(path):
                return None
        except (sqlite3.Error, OSError, ValueError, RuntimeError):
            return None
        return _decode(*rows[0][1:])

    def of(self, digest: str, kind: str) -> Finding | None:
        """The finding of a content; None where it was never examined, or by other decoders."""
        try:
            row = self._db.execute(
                "SELECT digest, record, times, fingerprint FROM findings WHERE digest = ? AND kind = ? AND made_by = ?",
                (digest, kind, self.made_by),
            ).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None else _decode(*row)

    def add(self, path: str, finding: Finding, seen: str = "") -> None:
        """Remember a finding under its content, and under its path where `seen`, its signature, can be trusted."""
        record = {name: getattr(finding, name) for name in _RECORD}
        times = np.ascontiguousarray(finding.times, dtype="<f8").tobytes()
        row = (finding.digest, kind_of(path), self.made_by, json.dumps(record), times, finding.fingerprint)
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?, ?, ?)", row)
            if seen:
                place = (_key(path), seen, finding.digest)
                self._db.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", place)

    def commit(self) -> None:
        """Make what was added so far outlast this process."""
        with contextlib.suppress(sqlite3.Error):
            self._db.commit()

    def count(self) -> int:
        """Contents known, by whatever decoder."""
        return int(self._db.execute("SELECT count(*) FROM findings").fetchone()[0])


_RECORD = ("status", "detail", "width", "height", "codec", "damage", "marks")


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))


@lru_cache
def _fallback() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="video-lstm-")


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last findings, never the file
        database.executescript(_SCHEMA)
        database.execute("SELECT 1 FROM places LEFT JOIN findings USING (digest) LIMIT 1").fetchall()
    except BaseException:
        database.close()
        raise
    return database


def _decode(digest: str, record: str, times: bytes, fingerprint: bytes) -> Finding | None:
    """A row as a finding; None where it makes no sense."""
    try:
        values: dict[str, Any] = json.loads(record)
        finding = Finding(
            digest=digest,
            times=np.frombuffer(times, dtype="<f8"),
            fingerprint=fingerprint,
            **(values | {"marks": tuple(values["marks"])}),
        )
    except (ValueError, TypeError, KeyError):
        return None
    return finding if finding.status != OK or len(finding.times) else None
