"""Object storage by fsspec: one attempt to fetch an object, and what lies below a prefix."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.addresses import scheme_of, shown
from pipeline.config.fetch import FetchConfig
from pipeline.data.remote.part import BACKOFF, Interrupted, Part
from pipeline.data.remote.room import Stopped
from pipeline.data.remote.systems import file_system
from pipeline.errors import DataError, Reason, UserError, VideoError
from pipeline.video.images import VIDEO_SUFFIXES, natural_key, suffix

BLOCK = 1 << 22
_PASSING = ("InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "RequestTimeTooSkewed", "503", "500")

Result = TypeVar("Result")


def copy_object(part: Part) -> None:
    """One attempt; it goes on where the one before ended, where the object is still the same.

    Raises:
        Interrupted: another attempt may succeed.
        VideoError: none will.
    """
    try:
        with file_system(scheme_of(part.address), part.config.stall).open(
            part.address, "rb", block_size=BLOCK, cache_type="none"
        ) as source:
            tag = str(source.details.get("ETag") or source.details.get("etag") or "")
            if tag != part.tag:
                part.restart()
            part.tag = tag
            part.admit(source.size)
            source.seek(part.done)
            while part.done < source.size:
                block = source.read(BLOCK)
                if not block:
                    raise part.cut()
                part.write(block)
    except (UserError, Interrupted, Stopped):
        raise
    except Exception as error:  # the packages of each kind of storage raise what they like
        raise _translated(error, part.address, part.config.stall) from None


def expand(address: str, config: FetchConfig | None = None) -> list[str]:
    """The files that a source in object storage stands for: one object, or the videos below a prefix or of a glob.

    Raises:
        DataError: it does not exist, holds no video, or cannot be listed.
    """
    config = config or FetchConfig()
    scheme = scheme_of(address)
    try:
        found = _insistent(lambda: _names(file_system(scheme, config.stall), address), address, config)
    except VideoError as error:
        raise DataError(str(error)) from None
    if not found:
        raise DataError(f"{shown(address)}: no video there")
    return [f"{scheme}://{name}" for name in found]


def _names(system: Any, address: str) -> list[str]:
    """Keys of a glob, a prefix, or one object, without the scheme."""
    plain = system._strip_protocol(address)
    is_glob = any(character in plain for character in "*?[")
    if is_glob and not system.exists(plain):
        found: list[str] = []
        for name, facts in system.glob(address, detail=True).items():
            found += system.find(name) if facts["type"] == "directory" else [name]
        return _videos(found, plain.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0])
    if address.endswith("/") or (not suffix(plain) and not system.isfile(plain)):
        return _videos(system.find(plain), plain)
    return [plain]


def _videos(names: list[str], below: str) -> list[str]:
    """The visible videos among keys, in natural order of their names."""
    kept = []
    for name in dict.fromkeys(names):
        hidden = any(part.startswith(".") for part in name.removeprefix(below).split("/"))
        if suffix(name) in VIDEO_SUFFIXES and not hidden:
            kept.append(name)
    return sorted(kept, key=lambda name: [natural_key(part) for part in name.split("/")])


def _insistent(ask: Callable[[], Result], address: str, config: FetchConfig) -> Result:
    """The answer, after some attempts."""
    waiting = threading.Event()
    for attempt in range(config.retries + 1):
        try:
            return ask()
        except Exception as error:
            translated = _translated(error, address, config.stall)
            if isinstance(translated, VideoError):
                raise translated from None
            waiting.wait(BACKOFF * 2**attempt)
    raise VideoError(shown(address), translated.reason, f"{translated.detail}; {config.retries + 1} attempts")


def _translated(error: Exception, address: str, stall: float) -> VideoError | Interrupted:
    """What a package raised, as what is to be done about it. Texts may hold keys and are not passed on."""
    name, code = type(error).__name__, _code(error)
    if isinstance(error, FileNotFoundError) or code in ("404", "NoSuchKey", "NoSuchBucket"):
        return VideoError(shown(address), Reason.NOT_FOUND)
    if "Credentials" in name or "credentials" in str(error).lower():
        return VideoError(shown(address), Reason.NOT_READABLE, "no credentials in the environment")
    if isinstance(error, PermissionError):
        return VideoError(shown(address), Reason.NOT_READABLE, f"access denied{f' ({code})' if code else ''}")
    if name == "ParamValidationError" or isinstance(error, ValueError | TypeError | IsADirectoryError):
        return VideoError(shown(address), Reason.NOT_READABLE, "it is no address of an object")
    if "Timeout" in name:
        return Interrupted(Reason.TIMED_OUT, f"no answer in {stall:g} s")
    if name == "EndpointConnectionError":
        return Interrupted(Reason.NOT_READABLE, "no connection")
    if code and code not in _PASSING and not code.startswith("5"):
        return VideoError(shown(address), Reason.NOT_READABLE, code)
    return Interrupted(Reason.NOT_READABLE, code or name)


def _code(error: Exception) -> str:
    """The storage's own word for an error, as boto and gcsfs keep it; empty where there is none."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        if isinstance(getattr(one, "code", None), int | str):
            return str(one.code)  # type: ignore[union-attr]
    return ""
