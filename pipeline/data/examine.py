"""One file: its content digest and what it really holds.

This runs in the worker processes of the catalog, so it imports nothing heavier than numpy and OpenCV.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache

from pipeline.data.findings import OK, Finding, Findings, kind_of, settled, signature
from pipeline.data.fingerprint import fingerprint, to_bytes
from pipeline.errors import Reason, VideoError
from pipeline.video.images import folder_images
from pipeline.video.reader import DECODER, VideoInfo, probe

FORMAT = 3
"""Version of the remembered findings; raise it when `probe` or `fingerprint` learns to see something else."""

MADE_BY = f"{FORMAT} {DECODER}"


@dataclass(frozen=True)
class Job:
    """One file to examine: a video file, an image, or a folder of images.

    Attributes:
        path: the file.
        cache: folder of the remembered findings.
        megapixels: largest frame, in millions of pixels.
    """

    path: str
    cache: str
    megapixels: float


@dataclass(frozen=True)
class Examined:
    """A finding, whether it may be remembered, and the signature under which its path may be trusted (or "")."""

    finding: Finding
    lasting: bool = False
    seen: str = ""


def examine(job: Job) -> Examined:
    """Digest and probe one source; a content that was probed before is only hashed.

    Every failure is a finding; nothing is raised.
    """
    path, digest, seen = job.path, "", ""
    try:
        # Pipes and the like would block for ever; they have no content to hash, and probe says what is wrong.
        if os.path.isdir(path) or (os.path.isfile(path) and os.path.getsize(path) > 0):
            before = signature(path)
            seen = before if settled(path) else ""
            digest = content_digest(path)
            known = _store(job.cache).of(digest, kind_of(path))
            finding = known or _finding(probe(path, megapixels=job.megapixels, thumbnails=True), digest)
            if signature(path) != before:
                return Examined(_changed())
            return Examined(finding, True, seen)
        return Examined(_finding(probe(path, megapixels=job.megapixels), digest))
    except VideoError as error:
        in_content = error.reason not in (Reason.NOT_FOUND, Reason.NOT_READABLE, Reason.EMPTY, Reason.TOO_LARGE)
        return Examined(Finding(str(error.reason), error.detail, digest), bool(digest) and in_content, seen)
    except (OSError, ValueError):
        # Looking at it failed; probing fails the same way and knows the reason.
        try:
            return Examined(_finding(probe(path, megapixels=job.megapixels), ""))
        except VideoError as error:
            return Examined(Finding(str(error.reason), error.detail))


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
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _store(cache: str) -> Findings:
    """Opened once per worker."""
    return Findings(cache, MADE_BY)


def _changed() -> Finding:
    return Finding(str(Reason.NOT_READABLE), "it changed while it was being read; try again")


def _finding(info: VideoInfo, digest: str) -> Finding:
    look = to_bytes(fingerprint(info.thumbnails))
    return Finding(OK, "", digest, info.times, info.width, info.height, info.codec, info.damage, info.marks, look)
