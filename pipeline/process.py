"""What a process may use, what it keeps rather than makes again, and how it starts another."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping

KERNELS = "16384"
"""Compiled kernels that oneDNN keeps: 200 MB; a MobileNetV3 in training has 500 for each number of frames."""
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Names of mallopt(3) in glibc's malloc.h."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_process() -> None:
    """Keep freed memory, and enough kernels for batches of clips of different lengths: of PyTorch's 1,024 those of one
    number of frames displace those of another. For a program's start; what the user set in the environment stays.
    """
    keep_freed_memory()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)


def keep_freed_memory() -> bool:
    """Keep glibc from giving large blocks back to the system, such as a CNN's activations, which the next pass would
    get page by page, filled with zeros. One arena serves all threads: others give memory back all the same.

    Returns:
        Whether it was done: not without glibc, nor where the user has tuned it.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)))


def boot(module: str) -> str:
    """Python code that calls `main` of a module with a descriptor; modules are where this process found them.

    Not `-m`: that would look for modules in the current folder first, where this process need not look.
    """
    return f"""\
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from {module} import main
main(int(sys.argv[1]))"""


def threads(count: int) -> dict[str, str]:
    """An environment in which computations have so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(count))


def start_connected(code: str, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start code of `boot` in a process, connected with this one. A Ctrl-C in the terminal never reaches it.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", code, str(theirs.fileno()), path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
    return child, ours
