"""How busy the machine is while a run runs: a thread beside the work, which reads a few counters now and then.

MLflow's own monitor does this for runs that it started itself, through a connection of its own, and asks the server
before each reading whether the run still runs. Here the readings go the way of all other metrics, under the names that
MLflow's page knows as system metrics.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from pipeline.errors import TrackingError
from pipeline.tracking.run import Run

INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
"""MLflow's own variable: seconds between two readings, whatever the configuration says."""
FIRST = "system/cpu_utilization_percentage"


@contextmanager
def system_metrics(run: Run, seconds: float) -> Iterator[None]:
    """Record the machine's load while the context lasts: every `seconds`, and once at the end; 0: not at all.

    A store that fails costs readings and nothing else.
    """
    seconds = _interval(seconds)
    if run.run_id is None or not seconds:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(run, seconds, over), name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10)


def _interval(seconds: float) -> float:
    try:
        return float(os.environ[INTERVAL])
    except (KeyError, ValueError):
        return seconds


def _watch(run: Run, seconds: float, over: threading.Event) -> None:
    """The thread: one reading after the other until it is over, the last one then.

    A reading's step is its time in milliseconds since 1970: those of a training that goes on follow the others, whether
    or not the store can be asked for them.
    """
    meter = Meter()
    try:
        while True:
            ended = over.wait(seconds)
            with suppress(TrackingError):
                run.metrics(meter.read(), step=int(time.time() * 1000))
            if ended:
                return
    finally:
        meter.close()


class Meter:
    """Reads the load of processor, memory and NVIDIA GPUs (with the extra `gpu`), and the memory of this process and
    those it started.
    """

    def __init__(self) -> None:
        psutil.cpu_percent()  # the first call has nothing to compare with
        self._process = psutil.Process()
        self._nvml: Any = None
        with suppress(Exception):  # no such package, no driver, no GPU
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml

    def read(self) -> dict[str, float]:
        """Metrics by name; the processor's is the mean since the last reading."""
        memory = psutil.virtual_memory()
        return {
            FIRST: psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_usage_megabytes": self._own_memory() / 1e6,
            **self._gpus(),
        }

    def close(self) -> None:
        """Let go of the driver."""
        if self._nvml is not None:
            with suppress(Exception):
                self._nvml.nvmlShutdown()

    def _own_memory(self) -> int:
        """Bytes that are resident, of this process and of those below it; shared ones count for each."""
        total = 0
        for process in [self._process, *self._process.children(recursive=True)]:
            with suppress(psutil.Error):  # it has ended meanwhile
                total += process.memory_info().rss
        return total

    def _gpus(self) -> dict[str, float]:
        found: dict[str, float] = {}
        nvml = self._nvml
        for i in range(nvml.nvmlDeviceGetCount() if nvml is not None else 0):
            name = f"system/gpu_{i}"
            with suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByIndex(i)
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                found[f"{name}_memory_usage_megabytes"] = memory.used / 1e6
                found[f"{name}_memory_usage_percentage"] = 100 * memory.used / memory.total
                found[f"{name}_utilization_percentage"] = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
                found[f"{name}_power_usage_watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1e3
        return found
