"""fsspec's file systems, one of each kind for all threads; credentials are those that they find in the environment."""

from __future__ import annotations

import threading
from typing import Any

import fsspec

_made: dict[tuple[str, float], Any] = {}
_making = threading.Lock()


def file_system(scheme: str, stall: float) -> Any:
    """What reads addresses of a scheme. fsspec itself would make another one, with other connections, per thread.

    Args:
        scheme: s3, gs, http or https.
        stall: seconds without an answer, after which an attempt is given up.
    """
    kind = "http" if scheme == "https" else scheme
    with _making:
        if (kind, stall) not in _made:
            _made[kind, stall] = _make(kind, stall)
        return _made[kind, stall]


def _make(kind: str, stall: float) -> Any:
    if kind == "http":
        import aiohttp
        from fsspec.asyn import sync

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=stall, sock_read=stall)
        # proxies and ~/.netrc are part of the environment
        system = fsspec.filesystem(kind, client_kwargs={"timeout": timeout, "trust_env": True})
        sync(system.loop, system.set_session)
        return system
    if kind == "s3":  # attempts are counted in `transfer`, not here once more
        limits = {"connect_timeout": stall, "read_timeout": stall, "retries": {"max_attempts": 0}}
        system = fsspec.filesystem(kind, use_listings_cache=False, config_kwargs=limits)
        system.retries = 1
        system.connect()
        return system
    return fsspec.filesystem(kind, use_listings_cache=False)
