"""Which files and addresses a server may read for whoever asks it: none, unless its operator names them.

Without such a list anybody who can reach the server could let it open any file that its user may read, and any address
that its network reaches, from cloud metadata to the neighbours behind the firewall.
"""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
import stat
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from pipeline.errors import ConfigError, Reason, VideoError
from pipeline.stages.serve.settings import ALLOW

REFUSED = f"not allowed: {ALLOW} does not name it"
"""The same whether it exists or not: a server does not tell which files it has."""
_ENTRY = re.compile(r"https?://(?:\[[^\]]*\]|[^:/\s]*)(?::\d+(?=[:/]|$))?(?:/[^:]*)?|[^:]+")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Place:
    """An address that may be read: everything below it."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True)
class Allowed:
    """What may be read.

    Attributes:
        folders: absolute, links resolved.
        places: addresses.
    """

    folders: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()

    def file(self, path: str) -> str:
        """The real path of a file that may be read.

        Raises:
            VideoError: it may not, whether it exists or not; or it is no regular file.
        """
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):  # a name with a zero byte
            raise VideoError(path, Reason.NOT_READABLE, REFUSED) from None
        if not os.path.isabs(path) or not any(_below(real, folder) for folder in self.folders):
            raise VideoError(path, Reason.NOT_READABLE, REFUSED)
        try:
            mode = os.stat(real).st_mode
        except OSError:
            raise VideoError(path, Reason.NOT_FOUND) from None
        if not stat.S_ISREG(mode):  # reading a pipe would never end
            raise VideoError(path, Reason.NOT_A_VIDEO, "not a regular file")
        return real

    def url(self, address: str) -> SplitResult:
        """An address that may be read, in parts.

        Raises:
            VideoError: it may not.
        """
        refusal = VideoError(address, Reason.NOT_READABLE, REFUSED)
        try:
            parts = urlsplit(address)
            place = _place(parts)
        except ValueError:
            raise refusal from None
        if parts.username is not None or parts.password is not None or not address.isascii() or _odd(address):
            raise refusal
        if not any(_covers(allowed, place) for allowed in self.places):
            raise refusal
        return parts


def parse(text: str) -> Allowed:
    """The list of an environment variable: absolute folders and http(s) URLs, separated by colons.

    Raises:
        ConfigError: an entry that is neither.
    """
    folders, places = [], []
    for entry in (found.strip() for found in _ENTRY.findall(text)):
        if entry.startswith(("http://", "https://")):
            try:
                places.append(_place(urlsplit(entry)))
            except ValueError as error:
                raise ConfigError(f"{ALLOW}: '{entry}' is no address ({error})") from None
        elif os.path.isabs(entry):
            folders.append(os.path.realpath(entry))
        elif entry:
            raise ConfigError(f"{ALLOW}: '{entry}' is neither an absolute folder nor an http(s) URL")
    return Allowed(tuple(folders), tuple(places))


def may_connect(address: str, host: str) -> bool:
    """Whether an IP address may be talked to for an allowed host.

    Never: link-local ones, where clouds keep their credentials, multicast, and what is no address of one machine. This
    machine's own only where the list names it: a name may lead there that should not.

    Args:
        address: the IP address.
        host: as the list names it.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or (ip.is_reserved and not ip.is_loopback):
        return False
    return not ip.is_loopback or host == "localhost" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _place(parts: SplitResult) -> Place:
    """Raises: ValueError: no http(s) URL with a host."""
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("it has no scheme http or https, or no host")
    path = posixpath.normpath(unquote(parts.path) or "/")
    return Place(parts.scheme, parts.hostname.rstrip("."), parts.port or _PORTS[parts.scheme], path)


def _odd(address: str) -> bool:
    """What different programs read differently: control characters, backslashes, steps upwards, however written."""
    twice = unquote(unquote(address))
    return any(character < "!" or character in "\\\x7f" for character in address) or ".." in twice or "\\" in twice


def _covers(allowed: Place, wanted: Place) -> bool:
    same = (allowed.scheme, allowed.host, allowed.port) == (wanted.scheme, wanted.host, wanted.port)
    return same and _below(wanted.path, allowed.path)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
