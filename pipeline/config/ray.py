"""How a classification is spread over a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.types import NonNegativeInt, PositiveInt


@dataclass
class RayConfig:
    """A cluster that classifies (`--engine ray`): decoding in tasks, the network in actors."""

    address: str | None = None
    """HOST:PORT of a running cluster, or auto for the one of this machine; unset: $RAY_ADDRESS, else a cluster of this
    machine alone for as long as the command runs."""
    models: NonNegativeInt = 0
    """Actors with the network; 0: one for each GPU of the cluster, where it has none for each core."""
    files: PositiveInt = 32
    """Files of one decoding task: what is done again when its worker dies."""
