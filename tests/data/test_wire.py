"""Values between a process and its workers."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.wire import decode, encode, receive, send


@given(st.lists(st.one_of(st.just(0), st.integers(1, 300), st.just(700_000)), max_size=40))
def test_arrays_arrive_as_they_were_sent_however_many_and_large(sizes: list[int]) -> None:
    """More parts than one call takes, more bytes than the connection holds, and arrays without any."""
    rng = np.random.default_rng(len(sizes))
    arrays = [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=send, args=(ours, encode({"arrays": arrays, "more": "text"})))
        sender.start()
        found = decode(receive(theirs))
        sender.join()
    assert found["more"] == "text"
    assert [a.tobytes() for a in found["arrays"]] == [a.tobytes() for a in arrays]


def test_messages_follow_each_other_and_an_end_in_the_middle_of_one_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            send(ours, encode(1))
            send(ours, encode(np.arange(3)))
            ours.sendall(b"\x02\0\0")  # the first bytes of a third
        assert decode(receive(theirs)) == 1
        assert decode(receive(theirs)).tolist() == [0, 1, 2]
        with pytest.raises(EOFError):
            receive(theirs)
