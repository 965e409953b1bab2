"""A process for trials as the sweep sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from typing import Any

from pipeline import process

PATIENCE = 60.0
"""Seconds that a process has to save its best model when it must end."""


class TrialProcess:
    """One process; it ends with this one, however that ends.

    Args:
        threads: for its computations, unless the user's environment says how many; 0: as many as it likes.
    """

    def __init__(self, threads: int = 0) -> None:
        share = process.threads(threads) if threads else {}
        self._process, self._connection = process.start_connected(
            process.boot("pipeline.stages.sweep.worker"), share | os.environ
        )
        self._lines = self._connection.makefile("r", encoding="utf-8")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """For `select`: there is something to `receive`."""
        return self._connection.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Say something. A process that is gone does not hear it; `receive` tells."""
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return

    def receive(self) -> dict[str, Any] | None:
        """The next thing it says; None when it has ended."""
        try:
            line = self._lines.readline()
        except OSError:
            return None
        return json.loads(line) if line.endswith("\n") else None  # type: ignore[no-any-return]

    def leave(self) -> None:
        """Let it end; returns at once."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def end(self) -> str:
        """Wait until it has ended, at most `PATIENCE` seconds; how it ended, in words."""
        self.leave()
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._lines.close()
        self._connection.close()
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
