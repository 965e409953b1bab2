"""A Ray cluster to work on: one that runs somewhere, or one of this machine for the time being."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ClusterError, ConfigError
from pipeline.process import usable_cores

LOOPBACK = "127.0.0.1"
KNOCK_SECONDS = 10.0
"""Longest wait for somebody at an address."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_ENABLE_AUTO_CONNECT": "0",  # nothing of Ray starts a cluster by itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # tasks without a GPU are told so by their device
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what its C++ says on stderr is nothing a user can act on
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # ours is enough
}


@dataclass(frozen=True)
class Cluster:
    """What there is to work with.

    Attributes:
        ray: the module, connected.
        cpus: cores of all nodes together.
        gpus: GPUs of all nodes together.
    """

    ray: Any
    cpus: float
    gpus: float


@contextmanager
def ray_session(address: str | None = None) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine, which then ends with the session.

    Args:
        address: see `RayConfig`.

    Raises:
        ConfigError: the extra [ray] is not installed.
        ClusterError: no cluster answers there, or none can be started here.
    """
    quieten()
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f'Ray is not installed ({error}); pip install "video-lstm[ray]" brings it') from error
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    folder = tempfile.mkdtemp(prefix="ray") if address == "local" else None
    try:
        with own_signals(), _silent():
            _connect(ray, address, folder)
        there = ray.cluster_resources()
        yield Cluster(ray, there.get("CPU", 0.0), there.get("GPU", 0.0))
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def quieten() -> None:
    """What Ray is to leave undone; it looks at the environment when it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _connect(ray: Any, address: str, folder: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if folder is None:
            _knock(ray, address)
            ray.init(address, **quiet)
        else:
            with _on_loopback():
                ray.init(address, num_cpus=usable_cores(), include_dashboard=False, _temp_dir=folder, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if folder is None:
            raise ClusterError(f"no Ray cluster of this version answers at {address}: {first}") from error
        raise ClusterError(f"no Ray cluster can be started on this machine: {first}") from error
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray listens on all interfaces on Linux; elsewhere a cluster of one machine keeps to loopback, and here too."""
    from ray._private import ray_constants

    kept = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = kept


def _knock(ray: Any, address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would go on trying for minutes."""
    host, separator, port = address.rpartition(":")
    if not separator or "/" in address or not port.isdigit():
        return
    if host in ("localhost", LOOPBACK, "[::1]"):
        host = ray.util.get_node_ip_address()  # where Ray looks then
    socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


@contextmanager
def _silent() -> Iterator[None]:
    """Ray's C++ reports its settings on standard error, past Python."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; a scheduler's stop must stay what it is for all commands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
