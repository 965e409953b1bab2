"""What a run says of where it ran: the command, the user, the commit, the versions."""

from __future__ import annotations

import getpass
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pipeline.addresses import PACKAGES as PLACES
from pipeline.addresses import scheme_of, shown
from pipeline.tracking.store import hide_password

TAG_LENGTH = 8000
"""MLflow's limit: characters of a tag."""
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "cv2": "opencv-python",
    "albumentations": "albumentations",
    "mlflow": "mlflow",
    "video-lstm": "video-lstm",
}
"""Import name: distribution, for the `version.` tags."""


def source_tags() -> dict[str, str]:
    """Who ran what, from which commit, with which versions."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "video-lstm")  # python -m pipeline
    given = [shown(word) if scheme_of(word) in PLACES else word for word in sys.argv[1:]]
    command = shlex.join([program, *given])
    tags = {
        "mlflow.source.name": hide_password(command)[:TAG_LENGTH],
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "version.python": platform.python_version(),
    }
    for name, distribution in PACKAGES.items():
        try:
            tags[f"version.{name}"] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    commit = _commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return tags


def _user() -> str:
    """Login name; containers may run under a number that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _commit() -> str | None:
    """Commit of the current folder's repository; None without git, repository or commit."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
