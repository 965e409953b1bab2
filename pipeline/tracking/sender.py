"""A thread that empties an outbox into the store, so that no training waits for a server, or ends with it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from pipeline.errors import TrackingError
from pipeline.tracking.delivery import Delivery, RefusedError
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.store import reason

SEND_SECONDS = 1.0
"""Time between two requests with metrics: epochs on stored features may be shorter than a request."""
RETRY_SECONDS = (1.0, 30.0)
"""Time until a store that takes nothing is asked again: at first, and at most. Each time is twice the last."""


def tell(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr, flush=True)


class Sender:
    """Sends what an outbox holds, from its making until `end`, or until the process ends.

    Args:
        outbox: entries are appended by others meanwhile; `wake` says so.
        delivery: into the run's store.

    Attributes:
        away: why the store takes nothing now, in one line; empty: it does.
    """

    def __init__(self, outbox: Outbox, delivery: Delivery) -> None:
        self.away = ""
        self._outbox, self._delivery = outbox, delivery
        self._changed = threading.Condition()
        self._appended = self._ended = False
        self._hurry = 0
        self._then: Callable[[], bool] | None = None
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Entries were appended."""
        with self._changed:
            self._appended = True
            self._changed.notify_all()
            if self._thread is None and not self._ended:
                # a daemon: a request to a server that hangs keeps no process alive
                self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)
                self._thread.start()

    def flush(self, patience: float, given_up: float) -> bool:
        """Wait until the store has all.

        Args:
            patience: seconds in which no request came to an end, after which waiting is given up.
            given_up: seconds that a store that takes nothing has to come back.

        Returns:
            Whether it has.
        """
        self.wake()
        with self._changed:
            self._hurry += 1
            self._changed.notify_all()
            try:
                seen, since, began = self._outbox.sent, time.monotonic(), time.monotonic()
                while self._outbox.waiting:
                    self._changed.wait(0.1)
                    now = time.monotonic()
                    if self._outbox.sent != seen:
                        seen, since, began = self._outbox.sent, now, now
                    if now - since > patience or (self.away and now - began > given_up):
                        return False
            finally:
                self._hurry -= 1
        return True

    def then(self, do: Callable[[], bool] | None) -> None:
        """What to do when nothing waits any more; if it says True, this was all."""
        self._then = do
        if do is not None:
            self.wake()

    def end(self) -> None:
        """Stop; nothing waits. Returns when the thread touches the outbox no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        delay = RETRY_SECONDS[0]
        while not self._ended:
            self._appended = False
            try:
                count = self._delivery.deliver(self._outbox)
            except RefusedError as error:
                tell(f"not recorded in MLflow: {error}")
                self._outbox.skip()
                count = 1
            except OSError:
                tell(f"{self._outbox.folder} was removed, and with it what was to be recorded in MLflow")
                return
            except Exception as error:  # a store may fail in ways that nobody foresaw, and the training goes on
                self._failed(reason(error) if isinstance(error, TrackingError) else f"{type(error).__name__}: {error}")
                self._pause(delay)
                delay = min(2 * delay, RETRY_SECONDS[1])
                continue
            delay = RETRY_SECONDS[0]
            if count:
                self._succeeded()
                self._pause(SEND_SECONDS)
            elif self._then is not None and self._then():
                return
            else:
                with self._changed:
                    self._changed.wait_for(lambda: self._appended or self._ended)

    def _failed(self, why: str) -> None:
        if not self.away:
            tell(f"MLflow takes nothing now: {why}. What is to be recorded waits in {self._outbox.folder}")
        self.away = why

    def _succeeded(self) -> None:
        if self.away:
            tell(f"MLflow takes entries again; {self._outbox.waiting} more wait")
        self.away = ""
        with self._changed:
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        """Unless somebody is waiting for the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._hurry or self._ended, seconds)
            if self._hurry and self.away:
                self._changed.wait(RETRY_SECONDS[0])
