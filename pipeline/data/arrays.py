"""A few float32 arrays in one sealed file: written whole or not at all, read as a memory map, checked at each reading.

The file is safetensors with one entry of metadata: a checksum over the file's name in the store, the arrays' names and
shapes, and every byte. At 6 GB/s it takes about as long as opening the file, so nothing is ever served unchecked.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

SUFFIX = ".safetensors"
TEMPORARY = ".tmp"

Arrays = dict[str, NDArray[np.float32]]


class DamagedFileError(Exception):
    """A file that is not what was written."""


def write_arrays(path: Path, seal: str, arrays: Mapping[str, NDArray[np.float32]]) -> int:
    """Write the file in one step, making its folder if needed; readers see all of it or nothing.

    Args:
        path: its place.
        seal: what the checksum begins with; a file under another seal counts as damaged.
        arrays: by name.

    Returns:
        Its size in bytes.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    whole = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in arrays.items()}
    content = save(whole, metadata={"crc32": _checksum(seal, whole)})
    temporary = path.with_name(f"{path.stem}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it is gone where all went well, and the error itself must come through
            temporary.unlink(missing_ok=True)
    return len(content)


def read_arrays(path: Path, seal: str) -> Arrays:
    """The arrays as views of the mapped file. Writing into them changes them alone, not the file.

    The map needs no open file, and outlives a removal or replacement of the file.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DamagedFileError: it is not what was written under this seal.
    """
    size = os.stat(path).st_size
    if size < 8:
        raise DamagedFileError(str(path))
    try:
        # np.memmap would hold a file descriptor per array, and a process has only so many
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError as error:  # removed or replaced since the line above
        raise FileNotFoundError(str(path)) from error
    try:
        checksum, arrays = _views(content)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedFileError(str(path)) from error
    if checksum != _checksum(seal, arrays):
        raise DamagedFileError(str(path))
    return arrays


def _views(content: NDArray[np.uint8]) -> tuple[str, Arrays]:
    """What a safetensors file says it holds: the checksum in its header, and the arrays."""
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header: dict[str, Any] = json.loads(content[8:start].tobytes())
    checksum = header.pop("__metadata__")["crc32"]
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] != "F32":
            raise ValueError(entry["dtype"])
        first, end = entry["data_offsets"]
        arrays[name] = content[start + first : start + end].view(np.float32).reshape(entry["shape"])
    return checksum, arrays


def _checksum(seal: str, arrays: Mapping[str, NDArray[np.float32]]) -> str:
    found = zlib.crc32(seal.encode())
    for name in sorted(arrays):
        found = zlib.crc32(json.dumps([name, arrays[name].shape]).encode(), found)
        found = zlib.crc32(arrays[name].data, found)
    return f"{found:08x}"
