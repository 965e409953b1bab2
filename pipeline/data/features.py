"""The feature store: what a frozen encoder makes of a clip, kept on disk under a key made of all that decides it.

The key covers the file's content, the sampling, the transform, the view, the encoder's weights and the libraries that
decode and compute. Change any of them and the key is another one: a stale feature cannot be served (the caches people
copy use the file name).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline.config.folders import cache_dir
from pipeline.data.arrays import SUFFIX, TEMPORARY, Arrays, DamagedFileError, read_arrays, write_arrays
from pipeline.data.clips import Plan
from pipeline.errors import ConfigError, DataError
from pipeline.video.reader import DECODER

FORMAT = 3
"""Version of the arithmetic that makes a feature; 3: batch norm folded."""

LIMIT = "VIDEO_LSTM_CACHE_LIMIT"
DEFAULT_LIMIT = "20GB"
IN_USE = 3600.0
"""Seconds since its last use in which an entry is never evicted: a training may be reading it every epoch."""
TOUCH = 600.0
"""Seconds after which a use is noted anew; the time of last use is the file's modification time."""
ABANDONED = 3600.0
"""Seconds after which a file that is still being written was left by a process that was killed."""
FREED = 0.1
"""Share of the limit that is free after an eviction, so that the next one is not the next entry's."""

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Usage:
    """What lies in a store: number of entries, bytes, and when (seconds since 1970) entries were last used.

    `oldest` and `newest` are None where there are none.
    """

    entries: int
    size: int
    oldest: float | None
    newest: float | None


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used: float


class FeatureStore:
    """A folder of features, one small file per clip and view; safe with several readers and writers.

    When it outgrows its limit, the entries that were not used for longest are removed, but none that was used within
    the hour. How much it holds is estimated between looks at the folder, so the limit may be passed by some percent.

    Args:
        folder: where; made when first written to. None: `features` in the cache folder.
        limit: bytes; None: $VIDEO_LSTM_CACHE_LIMIT, else 20 GB.

    Attributes:
        damaged: keys whose entries were found damaged; they count as not there.
        excess: bytes above the limit that could not be removed when last tried, being in use.

    Raises:
        ConfigError: $VIDEO_LSTM_CACHE_LIMIT is no size.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = Path(cache_dir()) / "features" if folder is None else folder
        self.limit = parse_size(os.environ.get(LIMIT) or DEFAULT_LIMIT, LIMIT) if limit is None else limit
        self.damaged: set[str] = set()
        self.excess = 0
        self._room = 0  # bytes that may be written before the folder is looked at again

    def get(self, key: str) -> Arrays | None:
        """Per stream float32 (T, D), or None if the key is not there. A damaged file counts as not there."""
        path = self._path(key)
        try:
            found = read_arrays(path, key)
        except DamagedFileError:
            self.damaged.add(key)
            return None
        except OSError:
            return None
        with contextlib.suppress(OSError):  # the folder may be someone else's, and the entry gone by now
            if time.time() - path.stat().st_mtime > TOUCH:
                os.utime(path)
        return found

    def put(self, key: str, features: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep features under a key; readers see all of it or nothing.

        Raises:
            DataError: the folder cannot be written to, or is full.
        """
        try:
            size = write_arrays(self._path(key), key, features)
        except OSError as error:
            raise DataError(
                f"{self.folder}: features cannot be stored ({error.strerror or error}); "
                "make room, or set VIDEO_LSTM_CACHE to another folder"
            ) from error
        self._room -= size
        if self._room < 0:
            self._make_room()

    def usage(self) -> Usage:
        """What the store holds."""
        entries = self._entries()
        used = [entry.used for entry in entries]
        size = sum(entry.size for entry in entries)
        return Usage(len(entries), size, min(used, default=None), max(used, default=None))

    def trim(self, limit: int) -> tuple[int, int]:
        """Remove what was not used for longest, until the rest has at most `limit` bytes or is in use.

        Returns:
            Number and bytes of the entries removed.
        """
        with self._lock(timeout=-1):
            return self._evict(limit, limit)

    def clear(self) -> tuple[int, int]:
        """Remove every entry; number and bytes."""
        removed = [entry for entry in self._entries() if _remove(entry.path)]
        return len(removed), sum(entry.size for entry in removed)

    def _make_room(self) -> None:
        """Evict if need be. What fails here costs space, and not the features or the training."""
        with contextlib.suppress(OSError):
            total = self.usage().size
            if total > self.limit:
                with contextlib.suppress(Timeout), self._lock(timeout=0):  # else another process is at it
                    total -= self._evict(self.limit, int(self.limit * (1 - FREED)))[1]
                self.excess = max(total - self.limit, 0)
            # a quarter: others write too, and each knows of its own entries alone
            self._room = max((self.limit - total) // 4, self.limit // 100)

    def _evict(self, limit: int, target: int) -> tuple[int, int]:
        entries = sorted(self._entries(), key=lambda entry: entry.used)
        left, count, size = sum(entry.size for entry in entries), 0, 0
        if left <= limit:
            return 0, 0
        for entry in entries:
            if left - size <= target or time.time() - entry.used < IN_USE:
                break
            if _remove(entry.path):
                count, size = count + 1, size + entry.size
        return count, size

    def _entries(self) -> list[_Entry]:
        """Every entry there is. What killed writers left behind is removed in passing."""
        found = []
        for folder in _listed(self.folder):
            for item in _listed(folder) if folder.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):  # removed or renamed since it was listed
                    status = item.stat()
                    if item.name.endswith(SUFFIX):
                        found.append(_Entry(Path(item), status.st_size, status.st_mtime))
                    elif item.name.endswith(TEMPORARY) and time.time() - status.st_mtime > ABANDONED:
                        _remove(Path(item))
        return found

    def _lock(self, timeout: float) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock", timeout=timeout)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"


def parse_size(text: str, name: str) -> int:
    """Bytes of a size such as 500MB or 1.5 TB (decimal units; a bare number is bytes).

    Raises:
        ConfigError: it is none; `name` says where it was given.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)?\s*", text.upper())
    if match is None:
        raise ConfigError(f"{name} is '{text}'; write a size such as 500MB or 20GB")
    return int(float(match[1]) * _UNITS[match[2] or "B"])


def feature_key(digest: str, plan: Plan, encoders: str, view: int | None) -> str:
    """The key of one clip's features.

    Args:
        digest: the clip's identity: its content, and which segment of it.
        plan: how the clip is read.
        encoders: what reads it, see `stages.extract.encoders_digest`.
        view: None for the evaluation view, else the seed of the random one.
    """
    parts = {
        "format": FORMAT,
        "made_by": _made_by(),
        "clip": digest,
        # which damaged files are accepted does not change what a clip's frames are
        "video": {key: value for key, value in asdict(plan.video).items() if key != "partial"},
        "flow": asdict(plan.flow) if "flow" in plan.video.stream_names else None,
        # named only where it is: keys of features without it stay what they were
        **({"difference": asdict(plan.difference)} if "difference" in plan.video.stream_names else {}),
        "augmentation": None if view is None else _drawn(plan),
        "encoders": encoders,
        "view": view,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _made_by() -> str:
    """The libraries that decide a feature: another version may decode, resize or sum otherwise."""
    return f"{DECODER}, albumentations {metadata.version('albumentations')}, torch {torch.__version__}"


def _drawn(plan: Plan) -> dict[str, Any]:
    """The augmentation without what changes no view: how many there are, and what they are to be taken for."""
    drawn = asdict(plan.augmentation)
    del drawn["views"], drawn["reverse_labels"]
    # named only where they change a view: keys of features without them stay what they were
    if not drawn["reverse"]:
        del drawn["reverse"]
    if drawn.pop("flip_labels"):
        drawn["flip_drawn_from"] = "view"
    return drawn


def _listed(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []


def _remove(path: Path) -> bool:
    """Whether this call removed it; another process may have been first, or the folder is not ours to change."""
    try:
        path.unlink()
    except OSError:
        return False
    return True
