"""Settings of a whole process, with which PyTorch on a CPU does not do again what it has done."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

KERNELS = "16384"
"""Compiled kernels that oneDNN keeps, some 200 MB. A training step of MobileNetV3 has 500 for each number of frames."""
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Names of mallopt(3) in glibc's malloc.h."""
_TUNED = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX")


def prepare_process() -> None:
    """Keep freed memory and compiled kernels. For a program's start; what the user set in the environment stays.

    The second is for batches of clips of different lengths. With PyTorch's default of 1,024 kernels those of one number
    of frames displace those of another, and most steps begin by compiling theirs again.
    """
    keep_freed_memory()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Ask glibc's allocator not to give freed memory back to the system.

    It gives back every large block. The activations of a CNN on frames of 224 pixels are such blocks: each pass gets
    them anew, page by page, each of which the system has to find and fill with zeros. What is freed is as large in the
    next pass, so the process does not become larger than at its peak. One arena serves all threads, since others would
    give their memory back all the same.

    Elsewhere than on glibc, and where the user has tuned the allocator, nothing happens.

    Returns:
        Whether it was done.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in environment for name in _TUNED):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)))
