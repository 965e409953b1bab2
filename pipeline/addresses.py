"""Addresses of files that lie elsewhere, and what of them may be shown. Plain text: loads nothing."""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, urlsplit

WEB = ("http", "https")
STORE_SCHEMES = ("runs:/", "models:/")
"""How the address of a model in the MLflow store begins."""
PACKAGES = {
    "s3": "'video-lstm[remote]'",
    "gs": "gcsfs",
    "http": "'video-lstm[remote]'",
    "https": "'video-lstm[remote]'",
}
"""What brings each kind of address, as pip takes it."""
SHOWN = frozenset({"id", "v", "video", "file", "filename", "name", "path", "version", "versionid"})
"""Parameters of a query that name a file; the values of all others may be keys or signatures."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(path: str) -> str:
    """The scheme of an address, in lower case; empty for a path of this machine."""
    found = _ADDRESS.match(path)
    return found[1].lower() if found else ""


def is_address(path: str) -> bool:
    """Whether a path lies elsewhere."""
    return _ADDRESS.match(path) is not None


def shown(path: str) -> str:
    """A path or address without what must not be read by others: user, password, values of a query, fragment.

    A path of this machine stays as it is.
    """
    if not is_address(path):
        return path
    start, _, rest = path.partition("://")
    host, slash, place = rest.partition("/")
    if start.lower() in WEB:
        host, slash, place = re.match(r"([^/?#]*)(/?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
        place, mark, query = place.partition("#")[0].partition("?")
        place += mark + "&".join(_parameter(part) for part in query.split("&"))
    if "@" in host:
        host = "***@" + host.rpartition("@")[2]
    return f"{start}://{host}{slash}{place}"


def _parameter(text: str) -> str:
    name, mark, _ = text.partition("=")
    if not mark:
        return "***" if text else ""
    return text if name.lower() in SHOWN else f"{name}=***"


def parts_of(address: str) -> SplitResult:
    """Scheme, host, path and so on.

    Raises:
        ValueError: it is no address, or names no host.
    """
    parts = urlsplit(address)
    if not parts.hostname:
        raise ValueError("it names no host")
    return parts


def plain_suffix(address: str) -> str:
    """The suffix that an address or name from outside ends with, if it is a plain one; else empty."""
    path = re.split(r"[?#]", address)[0] if scheme_of(address) in WEB else address
    found = os.path.splitext(path)[1]
    return found if re.fullmatch(r"\.[A-Za-z0-9]{1,10}", found) else ""
