"""MLflow's web page on a store."""

from __future__ import annotations

import os
import socket
import sys

from pipeline.tracking.store import ENVIRONMENT, artifact_root


def ui_command(uri: str, host: str = "127.0.0.1", port: int = 5000) -> tuple[list[str], dict[str, str]]:
    """The command that serves the page, and the environment to run it in.

    One worker and no job runner: 5 s and 500 MB to start instead of 11 s and 1.7 GB. A server at an http(s)
    URI has its page already; there is nothing to start then.

    Args:
        uri: as `store_uri` gives it, not http(s).
        host: address to listen on; the default is seen from this machine alone.
        port: free, see `free_port`.

    Raises:
        ValueError: an http(s) URI.
    """
    if uri.startswith(("http://", "https://")):
        raise ValueError(f"{uri} is a server, which has its page at this address")
    command = [sys.executable, "-m", "mlflow", "server"]
    root = artifact_root(uri)
    if root is not None:
        command += ["--default-artifact-root", root.as_uri()]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    environment = {**ENVIRONMENT, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # Not on the command line, where every user of the machine could read a database's password.
    environment["MLFLOW_BACKEND_STORE_URI"] = uri
    return command, environment


def free_port(preferred: int = 5000, host: str = "127.0.0.1") -> int:
    """The preferred port if nobody listens there, else one that the system picks."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if os.name == "posix":  # elsewhere this would share the port of a server that listens
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port at {host}")
