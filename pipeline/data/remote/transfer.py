"""One file from elsewhere onto this disk: attempts, pauses between them, and what they come to."""

from __future__ import annotations

import threading
from pathlib import Path

from pipeline.addresses import PACKAGES, WEB, plain_suffix, scheme_of, shown
from pipeline.config.fetch import FetchConfig
from pipeline.data.remote.part import Interrupted, Part
from pipeline.data.remote.room import Room
from pipeline.errors import ConfigError, VideoError
from pipeline.video.images import sniffed_suffix


def check_scheme(address: str) -> None:
    """That files of this kind can be fetched here.

    Raises:
        ConfigError: they cannot; says what to install.
    """
    scheme = scheme_of(address)
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}://" for name in PACKAGES)
        raise ConfigError(f"{shown(address)}: only {known} and paths of this machine can be read")
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except ImportError:
        raise ConfigError(f"{shown(address)}: needs a package more: pip install {PACKAGES[scheme]}") from None


def fetch_file(address: str, place: Path, room: Room, ticket: int, config: FetchConfig, stop: threading.Event) -> Path:
    """Fetch one file.

    Args:
        address: where it lies.
        place: where it goes; it gets the suffix of the address, or of the kind of image that it begins like.
        room: where there must be room for it.
        ticket: its place in the order.
        config: what it may cost.
        stop: set when nobody wants it any more.

    Returns:
        Where it is.

    Raises:
        VideoError: it cannot be had.
        OSError: it cannot be written.
        Stopped: `stop` was set.
    """
    with place.open("w+b") as file:
        part = Part(address, file, room, ticket, config, stop)
        try:
            _attempts(part)
        except VideoError as error:
            raise part.error(error.reason, error.detail) from None
        file.seek(0)
        end = plain_suffix(address) or sniffed_suffix(file.read(16))
    room.settle(ticket, part.done)
    return place.rename(place.with_name(place.name + end))


def _attempts(part: Part) -> None:
    if scheme_of(part.address) in WEB:
        from pipeline.data.remote.web import copy_from_web as copy
    else:
        from pipeline.data.remote.objects import copy_object as copy
    failed, furthest = 0, 0
    while True:
        try:
            copy(part)
            return
        except Interrupted as error:
            if part.done > furthest:
                failed, furthest = 0, part.done
            if failed == part.config.retries:
                raise part.error(error.reason, f"{error.detail}; attempts: {failed + 1}") from None
            part.pause(failed, error.wait)
            failed += 1
