"""Decoders that crash, hang or eat memory, in every Python process that is started after this.

A `sitecustomize` on PYTHONPATH replaces cv2.VideoCapture in the workers: it looks at the name of the file it is to
open, for whole words between its dots (the random name of a temporary file may have "hog" in it). Nothing in the
pipeline knows of it.
"""

from __future__ import annotations

import os
from pathlib import Path

HOG_MEGABYTES = 800
"""Where a file that eats memory stops and only hangs, should nobody end it."""

SITECUSTOMIZE = f"""\
import os, signal, time
import cv2

_real = cv2.VideoCapture


def _hostile(*args):
    words = os.path.basename(str(args[0])).split(".") if args else ()
    if "crash" in words:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if "hog" in words:
        eaten = []
        for _ in range({HOG_MEGABYTES} // 20):
            eaten.append(bytearray(os.urandom(1)) * (20 << 20))
            time.sleep(0.02)
        time.sleep(600)
    return _real(*args)


cv2.VideoCapture = _hostile
"""


def hostile_environment(folder: Path) -> dict[str, str]:
    """Variables under which a decoder misbehaves on files with the word crash, hang or hog, such as a.crash.mp4.

    Args:
        folder: an empty one for this alone.

    Returns:
        What to add to the environment; with `monkeypatch.setenv` the workers of this process inherit it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    before = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": os.pathsep.join([str(folder), before] if before else [str(folder)]),
        # what importing `pipeline` sets before cv2; here cv2 comes first
        "OPENCV_LOG_LEVEL": "SILENT",
        "OPENCV_FFMPEG_LOGLEVEL": "-8",
    }
