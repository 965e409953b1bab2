"""The MLflow UI on the store that training writes to."""

from __future__ import annotations

import os
import signal
import subprocess

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.stages.progress import say
from pipeline.tracking.store import hide_password, sqlite_path, store_uri
from pipeline.tracking.ui import free_port, ui_command


def serve(config: TrackingConfig, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises:
        TrackingError: there is no store yet, or the server ends with an error.
    """
    uri = store_uri(config)
    if uri.startswith(("http://", "https://")):
        say(f"the store is a server; its page is at {hide_password(uri)}")
        return
    database = sqlite_path(uri)
    if database is not None and not database.exists():
        raise TrackingError(f"no store at {database} yet; run video-lstm train first, or set --uri")
    chosen = free_port(port, host)
    command, environment = ui_command(uri, host, chosen)
    say(f"MLflow UI on {hide_password(uri)}: http://{host}:{chosen}  (Ctrl-C ends it)")
    # a session of its own, so that the server and the workers it starts can be ended together
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            code = server.wait()
        except KeyboardInterrupt:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
            return
    if code:
        raise TrackingError(f"the MLflow server ended with code {code}")
