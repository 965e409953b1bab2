"""One file of a run: which, and what comes of reading it. This part of loading runs in the decoding processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import ClipInputs, Plan, load_clip, wanted_frames
from pipeline.errors import Reason, VideoError
from pipeline.video.once import read_once
from pipeline.video.reader import VideoInfo, probe


@dataclass(frozen=True)
class LoadedClip:
    """What came of one file: a clip, or why there is none.

    Attributes:
        index: position in the list of files.
        clip: None when the file gave none.
        error: None when it gave one.
        duration: seconds of the clip; 0 when unknown.
        note: what is wrong with a file that gave a clip all the same; empty when nothing is known to be.
    """

    index: int
    clip: ClipInputs | None
    error: VideoError | None = None
    duration: float = 0.0
    note: str = ""


def load_file(plan: Plan, item: tuple[int, ClipFile, int | None]) -> LoadedClip:
    """Read one clip: its position in the list of files, the file, and the seed of its view (None: evaluation).

    A file whose frames are not known yet is decoded as a whole to find them, and must keep to `plan.limits` and
    `plan.video.partial`; one with known times did so when they were found.

    Returns:
        The clip, or the error that says why there is none.
    """
    index, file, view = item
    try:
        if file.times is None:
            return _load_unknown(plan, index, file, view)
        clip = load_clip(file.path, file.times, plan, view, file.first)
        return LoadedClip(index, clip, duration=file.duration)
    except VideoError as error:
        return LoadedClip(index, None, error)


def load_path(plan: Plan, path: str) -> LoadedClip:
    """The evaluation view of a file of which nothing is known but its path; its index is 0."""
    return load_file(plan, (0, ClipFile(path), None))


def _load_unknown(plan: Plan, index: int, file: ClipFile, view: int | None) -> LoadedClip:
    once = read_once(file.path, partial(wanted_frames, plan=plan), plan.limits.megapixels) if view is None else None
    info, read = once or (probe(file.path, megapixels=plan.limits.megapixels), None)
    check_examined(plan, file, info)
    clip = load_clip(file.path, info.times, plan, view, read=read)
    return LoadedClip(index, clip, duration=info.duration, note=info.damage)


def check_examined(plan: Plan, file: ClipFile, info: VideoInfo) -> None:
    """Raises VideoError for a file that does not keep to `plan.limits` and `plan.video.partial`."""
    if info.damage and plan.video.partial == "reject":
        raise VideoError(file.path, Reason.TRUNCATED, info.damage)
    if info.frames < plan.limits.min_frames:
        detail = f"frames: {info.frames}; limits.min_frames is {plan.limits.min_frames}"
        raise VideoError(file.path, Reason.TOO_SHORT, detail)


def time_file(plan: Plan, item: tuple[int, ClipFile, int | None]) -> dict[str, float]:
    """What `load_file` does with a clip of known times, for the seconds of its steps alone: decode, transform, flow.

    Raises:
        VideoError: the file does not hold these frames any more.
    """
    _, file, view = item
    if file.times is None:
        raise ValueError(f"{file.path}: only a clip of known times is timed")
    spent: dict[str, float] = {}
    load_clip(file.path, file.times, plan, view, file.first, spent)
    return spent
