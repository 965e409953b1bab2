"""What a server is told: by environment variables, since MLflow starts it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.errors import ConfigError

PREFIX = "VIDEO_LSTM_SERVE_"
ALLOW = f"{PREFIX}ALLOW"


@dataclass(frozen=True)
class Settings:
    """What one server does, and what it lets a request cost.

    Attributes:
        allow: VIDEO_LSTM_SERVE_ALLOW: folders and URLs that may be read, separated by colons; empty: none.
        megabytes: VIDEO_LSTM_SERVE_MB: largest file.
        seconds: VIDEO_LSTM_SERVE_SECONDS: longest clip.
        timeout: VIDEO_LSTM_SERVE_TIMEOUT: seconds in which one file must be fetched, and again be decoded.
        workers: VIDEO_LSTM_SERVE_WORKERS: decoding processes; -1: one per core, at most 8.
        device: VIDEO_LSTM_SERVE_DEVICE: see `TrainingConfig.device`.
    """

    allow: str = ""
    megabytes: float = 100.0
    seconds: float = 600.0
    timeout: float = 30.0
    workers: int = -1
    device: str = "auto"

    @property
    def most_bytes(self) -> int:
        """`megabytes` in bytes."""
        return int(self.megabytes * 1e6)


def from_environment() -> Settings:
    """The settings of this process.

    Raises:
        ConfigError: a variable that is no number above 0.
    """
    return Settings(
        os.environ.get(ALLOW, ""),
        _number("MB", Settings.megabytes),
        _number("SECONDS", Settings.seconds),
        _number("TIMEOUT", Settings.timeout),
        _workers(),
        os.environ.get(f"{PREFIX}DEVICE", Settings.device),
    )


def _number(name: str, default: float) -> float:
    text = os.environ.get(PREFIX + name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{PREFIX}{name} is '{text}', not a number above 0")
    return value


def _workers() -> int:
    text = os.environ.get(f"{PREFIX}WORKERS", "-1")
    if text != "-1" and not (text.isdecimal() and int(text)):
        raise ConfigError(f"{PREFIX}WORKERS is '{text}', neither -1 nor a number above 0")
    return int(text)
