"""One file: its content digest and what it really holds, remembered by content.

This runs in the worker processes of the catalog, so it imports nothing heavier than numpy and OpenCV.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video.images import IMAGE_SUFFIXES, folder_images, suffix
from pipeline.video.reader import DECODER, VideoInfo, probe

OK = "ok"

FORMAT = 1
"""Version of the remembered results; raise it when `probe` learns to see something else."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Finding:
    """What one source holds, or why it holds nothing.

    Attributes:
        status: "ok" or a `Reason`; detail: what else is known, may be empty.
        digest: sha256 of the content in hex; empty where there is none to read.
        times: seconds of every decoded frame; the other fields are those of `VideoInfo`.
    """

    status: str
    detail: str = ""
    digest: str = ""
    times: list[float] = field(default_factory=list)
    width: int = 0
    height: int = 0
    codec: str = ""
    duration: float = 0.0
    fps: float = 0.0


def cache_dir() -> str:
    """$VIDEO_LSTM_CACHE, else $XDG_CACHE_HOME/video-lstm, else ~/.cache/video-lstm."""
    own = os.environ.get("VIDEO_LSTM_CACHE")
    if own:
        return own
    shared = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(shared, "video-lstm")


def content_digest(path: str) -> str:
    """sha256 in hex of a file's bytes; of a folder of images: of its sorted names and their contents.

    Raises:
        OSError: something that cannot be read.
        VideoError: a folder that cannot be listed or holds no image.
    """
    if not os.path.isdir(path):
        return _file_digest(path)
    whole = hashlib.sha256()
    for image in folder_images(path):
        whole.update(json.dumps([os.path.basename(image), _file_digest(image)]).encode())
    return whole.hexdigest()


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def examine(path: str, cache: str) -> Finding:
    """Digest and probe one source; what was probed before is only hashed.

    Args:
        path: a video file, an image, or a folder of images.
        cache: folder of remembered results.

    Returns:
        The finding; every failure is one, nothing is raised.
    """
    digest = ""
    try:
        # Pipes and the like would block for ever; they have no content to hash, and probe says what is wrong.
        if os.path.isdir(path) or (os.path.isfile(path) and os.path.getsize(path) > 0):
            digest = content_digest(path)
        known = _recall(cache, path, digest) if digest else None
        return known or _remember(cache, path, _finding(probe(path), digest))
    except VideoError as error:
        failure = Finding(str(error.reason), error.detail, digest)
        in_content = error.reason not in (Reason.NOT_FOUND, Reason.NOT_READABLE, Reason.EMPTY)
        return _remember(cache, path, failure) if digest and in_content else failure
    except (OSError, ValueError):
        # Hashing could not read it; probing fails the same way and knows the reason.
        try:
            return _finding(probe(path), "")
        except VideoError as error:
            return Finding(str(error.reason), error.detail)


def _finding(info: VideoInfo, digest: str) -> Finding:
    times = [float(time) for time in info.times]
    return Finding(OK, "", digest, times, info.width, info.height, info.codec, info.duration, info.fps)


def _cache_file(cache: str, path: str, digest: str) -> Path:
    """Under an image's suffix the same bytes are read otherwise: the kind of source is part of the name."""
    kind = "folder" if os.path.isdir(path) else "image" if suffix(path) in IMAGE_SUFFIXES else "video"
    return Path(cache) / "probe" / digest[:2] / f"{digest}.{kind}.json"


def _recall(cache: str, path: str, digest: str) -> Finding | None:
    """The remembered finding; None where there is none, it is damaged, or another decoder made it."""
    try:
        with open(_cache_file(cache, path, digest), encoding="utf-8") as file:
            stored = json.load(file)
        if (stored["format"], stored["decoder"]) != (FORMAT, DECODER):
            return None
        finding = Finding(**stored["finding"])
        np.asarray(finding.times, dtype=np.float64)
        whole = bool(finding.times) if finding.status == OK else finding.status in set(Reason)
        return finding if whole and finding.digest == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(cache: str, path: str, finding: Finding) -> Finding:
    """Store a finding; a cache that cannot be written costs time later and nothing else."""
    target = _cache_file(cache, path, finding.digest)
    record = {"format": FORMAT, "decoder": DECODER, "finding": finding.__dict__}
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.replace(temporary, target)
    except OSError:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
    return finding
