"""Values between a process and its workers: pickled, arrays beside the pickle, so that nobody copies their bytes."""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any

_COUNT = struct.Struct("<Q")
_AT_ONCE = 16
"""Parts of one call: as many as every system allows."""


def encode(value: Any) -> list[bytes | memoryview]:
    """A value as the parts that `send` takes: its pickle, then the memory of its arrays."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [head, *(buffer.raw() for buffer in buffers)]


def decode(parts: list[bytearray]) -> Any:
    """The value of `encode`. Only for what this program itself sent; never for a file."""
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301


def pack(value: Any) -> bytes:
    """A value in one piece, for those who carry bytes."""
    return pickle.dumps(value, protocol=5)


def unpack(data: bytes) -> Any:
    """The value of `pack`. Only for what this program itself sent; never for a file."""
    return pickle.loads(data)  # noqa: S301


def send(connection: socket.socket, parts: list[bytes | memoryview]) -> None:
    """Send parts one after the other, in few calls: the other side wakes up for each.

    Raises:
        OSError: the other side is gone.
    """
    sizes = [len(part) if isinstance(part, bytes) else part.nbytes for part in parts]
    head = b"".join(map(_COUNT.pack, [len(parts), *sizes]))
    left = [memoryview(part).cast("B") for part in (head, *parts)]
    while left:
        left = _after(left, connection.sendmsg(left[:_AT_ONCE]))


def receive(connection: socket.socket) -> list[bytearray]:
    """The parts of one `send`.

    Raises:
        OSError, EOFError: the other side is gone.
    """
    (count,) = _COUNT.unpack(_read(connection, [_COUNT.size])[0])
    sizes = struct.unpack(f"<{count}Q", _read(connection, [_COUNT.size * count])[0])
    return _read(connection, sizes)


def _read(connection: socket.socket, sizes: Sequence[int]) -> list[bytearray]:
    parts = [bytearray(size) for size in sizes]
    left = _after([memoryview(part) for part in parts], 0)
    while left:
        # in one call: between two this thread would wait for its turn each time
        got = connection.recvmsg_into(left[:_AT_ONCE], 0, socket.MSG_WAITALL)[0]
        if not got:
            raise EOFError
        left = _after(left, got)
    return parts


def _after(views: list[memoryview], done: int) -> list[memoryview]:
    """What is left of them after so many bytes; nothing that is empty."""
    for number, view in enumerate(views):
        if done < len(view):
            return [view[done:], *(rest for rest in views[number + 1 :] if len(rest))]
        done -= len(view)
    return []
