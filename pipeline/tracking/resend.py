"""Emptying the outbox of a run that no process sends any more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking.delivery import DOUBTFUL, Delivery, RefusedError
from pipeline.tracking.outbox import Outbox, glance
from pipeline.tracking.store import error_code, hide_password, reason, store_uri

PAUSE = 0.2
"""Seconds between two tries of a request that the store calls bad."""


@dataclass
class Resent:
    """What became of one run's entries.

    Attributes:
        folder: where they waited.
        store: that they are for, without a password.
        run_id: of the run in the store; None: the store has not seen it.
        waited: entries that waited.
        sent: of these, in the store now.
        refused: of these, why the store will never take them.
        error: why not all were sent; empty: they were.
    """

    folder: str
    store: str = ""
    run_id: str | None = None
    waited: int = 0
    sent: int = 0
    refused: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def left(self) -> int:
        """Entries that wait still."""
        return self.waited - self.sent - len(self.refused)


def resend(folder: Path, uri: str | None, advance: Callable[[int], None], away: dict[str, str]) -> Resent:
    """Send what waits in an outbox, and remove it when nothing does.

    Args:
        folder: of the outbox.
        uri: another store than that of the run.
        advance: called with the number of entries just sent.
        away: by address, why a store takes nothing now; such a one is not asked again, and is noted here.
    """
    known, waited = glance(folder)
    result = Resent(str(folder), run_id=known.get("run_id"), waited=waited)
    try:
        address = _address(uri, known.get("uri", ""))
        result.store = hide_password(address)
        if address in away:
            raise TrackingError(away[address])
        outbox = Outbox(folder, seconds=0.5)
    except TrackingError as error:
        result.error = str(error)
        return result
    delivery = Delivery(address, outbox.about.get("run_id"))
    result.waited = outbox.waiting
    try:
        while outbox.waiting:
            _one(delivery, outbox, result, advance)
    except TrackingError as error:
        result.error = away[address] = reason(error)
    except OSError as error:
        result.error = f"{folder}: cannot be read ({error.strerror})"
    finally:
        result.run_id = delivery.run_id
        outbox.release(remove=not outbox.waiting)
    return result


def _one(delivery: Delivery, outbox: Outbox, result: Resent, advance: Callable[[int], None]) -> None:
    """One request; one that is called bad is tried again, see `delivery.DOUBTFUL`."""
    try:
        for tried in range(1, DOUBTFUL + 1):
            try:
                count = delivery.deliver(outbox)
                break
            except RefusedError:
                raise
            except TrackingError as error:
                if error_code(error) != "BAD_REQUEST" or tried == DOUBTFUL:
                    raise
                time.sleep(PAUSE)
        result.sent += count
        advance(count)
    except RefusedError as error:
        outbox.skip()
        result.refused.append(str(error))
        advance(1)


def _address(given: str | None, recorded: str) -> str:
    """The store's address: the one in the journal has no password, which is in the environment then."""
    if given:
        return store_uri(TrackingConfig(uri=given))
    if ":***@" not in recorded:
        return store_uri(TrackingConfig(uri=recorded))
    known = os.environ.get("MLFLOW_TRACKING_URI", "")
    if hide_password(known) == recorded:
        return known
    raise TrackingError(f"the password of {recorded} is kept nowhere; give the address in MLFLOW_TRACKING_URI")
