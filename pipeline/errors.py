"""What a user can cause: every error the command line prints in one line, and why a file was left out.

Anything else that is raised is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a file gives no clip. A closed list: tables, reports and tests rely on these words."""

    NOT_FOUND = "not found"
    NOT_READABLE = "not readable"
    EMPTY = "empty"
    NOT_A_VIDEO = "not a video"
    NO_VIDEO_STREAM = "no video stream"
    UNSUPPORTED_CODEC = "unsupported codec"
    NO_FRAME_DECODED = "no frame decoded"
    TRUNCATED = "truncated"
    TOO_SHORT = "too short"
    TOO_LARGE = "too large"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    CRASHED = "decoder crashed"


class UserError(Exception):
    """Base of the errors that a user can cause; the command line prints it in one line and exits with 2."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration key, type or value that does not fit; says which and what would."""


class DataError(UserError):
    """The data as a whole cannot be used: no clips, one class, an unreadable list, a leaking split."""


class VideoError(UserError):
    """One file that gives no clip.

    Attributes:
        path: the file, as the user named it.
        reason: a member of the closed list `Reason`.
        detail: what else is known, in a few words; may be empty.
    """

    def __init__(self, path: str, reason: Reason, detail: str = "") -> None:
        super().__init__(path, reason, detail)
        self.path = path
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or does not belong to what it is used with."""


class ExportError(UserError):
    """A model that cannot be written as a graph, or whose graph does not give the model's numbers."""


class WeightsError(UserError):
    """Encoder weights that are not there, are not what they should be, or do not fit the encoder."""


class TrackingError(UserError):
    """The MLflow store cannot be reached or refuses what it was sent."""


class Preempted(KeyboardInterrupt):
    """A scheduler asked this process to end, by SIGTERM. A Ctrl-C otherwise, told apart by its exit code."""

    exit_code = 143


class DistributedError(UserError):
    """Several processes that train together do not find each other, or one of them failed."""


class ClusterError(UserError):
    """A Ray cluster that does not answer, cannot be started, or could not do its work."""
