"""Where a reader's moments wait for the model, and what becomes of them when it falls behind."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from pipeline.data.moments import Moment

ROOM = 4
"""Moments of one source that wait at most."""


@dataclass(frozen=True)
class Gap:
    """A source was lost for a while; seconds of the stream's clock."""

    lost: float
    back: float


@dataclass(frozen=True)
class Arrival:
    """A moment of one source.

    Attributes:
        moment: what the model reads.
        time: seconds of the stream's clock.
        arrived: `time.monotonic()` when its frame came out of the decoder.
        gap: what is missing just before it.
    """

    moment: Moment
    time: float
    arrived: float
    gap: Gap | None = None


class Mailbox:
    """One source's moments, in order; one thread puts, another takes.

    Args:
        changed: notified at every change; several mailboxes share one, so that all can be waited for at once.
        drop: a full mailbox drops its oldest moment, so that the newest is answered next; else whoever puts waits.

    Attributes:
        dropped: moments that were.
        finished: nothing more will come.
    """

    def __init__(self, changed: threading.Condition, drop: bool) -> None:
        self._changed, self._drop = changed, drop
        self._waiting: deque[Arrival] = deque()
        self.dropped, self.finished, self._closed = 0, False, False

    def put(self, arrival: Arrival) -> bool:
        """False where the mailbox is closed, and the moment lost."""
        with self._changed:
            while len(self._waiting) >= ROOM and not self._closed:
                if self._drop:
                    self._drop_oldest()
                else:
                    self._changed.wait()
            if self._closed:
                return False
            self._waiting.append(arrival)
            self._changed.notify_all()
            return True

    def take(self) -> Arrival | None:
        """The next moment, if there is one. Whoever calls holds `changed`."""
        if not self._waiting:
            return None
        self._changed.notify_all()
        return self._waiting.popleft()

    def finish(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self.finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more is taken; who waits to put goes on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._waiting)

    def _drop_oldest(self) -> None:
        oldest = self._waiting.popleft()
        self.dropped += 1
        if oldest.gap is not None and self._waiting:  # a gap stays one when what followed it is dropped
            self._waiting[0] = replace(self._waiting[0], gap=self._waiting[0].gap or oldest.gap)
