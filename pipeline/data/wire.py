"""Values between a process and its workers: pickled, arrays beside the pickle, so that nobody copies their bytes."""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

_COUNT = struct.Struct("<Q")


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
    """Send parts in one piece after the other.

    Raises:
        OSError: the other side is gone.
    """
    sizes = [len(part) if isinstance(part, bytes) else part.nbytes for part in parts]
    connection.sendall(b"".join(map(_COUNT.pack, [len(parts), *sizes])))
    for part in parts:
        connection.sendall(part)


def receive(connection: socket.socket) -> list[bytearray]:
    """The parts of one `send`.

    Raises:
        OSError, EOFError: the other side is gone.
    """
    (count,) = _COUNT.unpack(_read(connection, _COUNT.size))
    sizes = [_COUNT.unpack(_read(connection, _COUNT.size))[0] for _ in range(count)]
    return [_read(connection, size) for size in sizes]


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        # in one call: between two this thread would wait for its turn each time
        got = connection.recv_into(view, 0, socket.MSG_WAITALL)
        if not got:
            raise EOFError
        view = view[got:]
    return data
