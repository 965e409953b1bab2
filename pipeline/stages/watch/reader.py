"""A thread per source: frames in, moments into a mailbox; a lost source is sought again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pipeline.data.clips import Plan
from pipeline.data.moments import Moments
from pipeline.errors import Reason, VideoError
from pipeline.stages.watch.mailbox import Arrival, Gap, Mailbox
from pipeline.video.live import Stream, kind_of, open_stream, shown

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a lost source is sought again; doubled each time up to the longest."""

Say = Callable[[str], None]


class Reader:
    """Reads one source in a thread of its own; OpenCV leaves the interpreter to others while it decodes.

    The stream's clock is in seconds: of a file after its first frame; of a live source after `zero`, so that it goes on
    where the source comes back.

    Args:
        source: as on the command line.
        plan: of the moments, see `pipeline.data.moments.streaming`.
        changed: see `Mailbox`.
        drop: see `Mailbox`; None: what cannot wait drops, that is live sources and files in real time; the rest waits.
        realtime: a file is read no faster than it plays.
        give_up: seconds after which a lost source is given up; 0: never.
        zero: `time.monotonic()` of the beginning.
        say: where messages go.

    Attributes:
        name: for people.
        live: a camera or an address.
        mailbox: the moments.
        frames: read so far.
        gaps: how often the source was lost and came back.
        failure: why it is not read at the moment; None while it is.
        error: why it was given up.
        bug: what else ended the thread.
    """

    def __init__(
        self,
        source: str,
        plan: Plan,
        changed: threading.Condition,
        drop: bool | None,
        realtime: bool,
        give_up: float,
        zero: float,
        say: Say,
    ) -> None:
        self.source, self.name = source, shown(source)
        self.live = kind_of(source) in ("camera", "address")
        self.mailbox = Mailbox(changed, self.live or realtime if drop is None else drop)
        self.frames = self.gaps = 0
        self.failure: VideoError | None = None
        self.error: VideoError | None = None
        self.bug: Exception | None = None
        self._moments = Moments(plan)
        self._realtime, self._give_up, self._zero, self._say = realtime and not self.live, give_up, zero, say
        self._stopped = threading.Event()
        self._last: float | None = None  # seconds of the stream's clock
        self._thread = threading.Thread(target=self._run, name=f"read {self.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float = 1.0) -> None:
        """Ask it to end, and wait for it; a thread that hangs in a decoder is left to the end of the process."""
        self._stopped.set()
        self.mailbox.close()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._read_all()
        except VideoError as error:
            self.error = error
        except Exception as error:
            self.bug = error
        finally:
            self.mailbox.finish()

    def _read_all(self) -> None:
        lost_since, wait = time.monotonic(), FIRST_WAIT
        while not self._stopped.is_set():
            before = self.frames
            try:
                with open_stream(self.source) as stream:
                    self._read(stream)
                    if stream.finite or self._stopped.is_set():
                        return
                failure = VideoError(self.name, Reason.NOT_READABLE, "the connection ended")
            except VideoError as error:
                if not self.live:
                    raise
                failure = error
            if self.frames > before:
                lost_since, wait = time.monotonic(), FIRST_WAIT
            if self._give_up and time.monotonic() - lost_since + wait > self._give_up:
                raise failure
            self.failure = failure
            self._say(f"{failure}; trying again in {wait:g} s")
            self._stopped.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _read(self, stream: Stream) -> None:
        """Until the stream ends or is lost."""
        first: float | None = None
        base, gap, arrived_before = 0.0, None, 0.0
        self._moments.reset()
        while not self._stopped.is_set():
            read = stream.read()
            arrived = time.monotonic()
            if read is None:
                return
            frame, at = read
            if first is None:
                first, base, self.failure = at, self._base(arrived), None
                gap = None if self._last is None else Gap(self._last, base)
                self.gaps += gap is not None
            self.frames += 1
            self._last = base + (at - first)
            if self._realtime and self._stopped.wait(max(0.0, self._zero + self._last - time.monotonic())):
                return
            arrived = time.monotonic() if self._realtime else arrived
            for moment in self._moments.push(frame, at):
                # one that is known only now that the next frame is there
                since = arrived if moment.time == at else arrived_before
                if not self.mailbox.put(Arrival(moment, base + (moment.time - first), since, gap)):
                    return
                gap = None
            arrived_before = arrived

    def _base(self, arrived: float) -> float:
        """Seconds of the stream's clock at the first frame since it was opened."""
        if not self.live:
            return 0.0
        return max(arrived - self._zero, 0.0 if self._last is None else self._last + 1e-3)
