"""What a stage may record of a run, whether it is tracked or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Run(Protocol):
    """Where a stage records what it does; `start` gives one.

    Nothing here waits for the store or fails with it, but `send`; where the disk refuses what is to wait for the store,
    that is said, and costs the record alone. The methods may be called from several threads.
    """

    @property
    def run_id(self) -> str | None:
        """Identifier in the store, kept in checkpoints to resume the run; None: tracking is off."""

    def params(self, flat: Mapping[str, Any]) -> None:
        """Record parameters. They cannot change: one that differs from an earlier value becomes a tag
        `drift.KEY` with the new value. Longer values than MLflow takes are cut.
        """

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; the last value counts."""

    def note(self, text: str) -> None:
        """Describe the run, in Markdown, where its page begins; what a person wrote there stays."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers at a step; a number that the store has for this step already is not sent again."""

    def dataset(
        self, name: str, digest: str, source: str, context: str, schema: str | None = None, profile: str | None = None
    ) -> None:
        """Record what the run reads, as an MLflow dataset input.

        Args:
            name: of the data set.
            digest: of its contents, at most 36 characters.
            source: where it lies.
            context: what it is for, such as training.
            schema, profile: JSON.
        """

    def text(self, text: str, artifact_path: str) -> None:
        """Store a text as the artifact file of this name."""

    def artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Store a file, or what is in a folder, as it is now, under `artifact_path` (None: at the top)."""

    def model(self, folder: str | Path) -> None:
        """Store a folder of `models.build` as the run's LoggedModel; one that it has already is replaced."""

    def send(self) -> None:
        """Wait until the store has all that was recorded.

        Raises:
            TrackingError: it does not take it.
        """

    def finish(self, status: Status = "FINISHED") -> None:
        """Close the run. Waits for the store, but not for ever: what it does not take is said, and stays on disk."""


class NoRun:
    """Tracking is off: takes everything, keeps nothing, imports nothing."""

    run_id: str | None = None

    def params(self, flat: Mapping[str, Any]) -> None:
        """Nothing."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def dataset(
        self, name: str, digest: str, source: str, context: str, schema: str | None = None, profile: str | None = None
    ) -> None:
        """Nothing."""

    def text(self, text: str, artifact_path: str) -> None:
        """Nothing."""

    def artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Nothing."""

    def model(self, folder: str | Path) -> None:
        """Nothing."""

    def send(self) -> None:
        """Nothing."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Nothing."""
