"""Where things are kept that save work the next time."""

from __future__ import annotations

import os


def cache_dir() -> str:
    """$VIDEO_LSTM_CACHE, else $XDG_CACHE_HOME/video-lstm, else ~/.cache/video-lstm."""
    own = os.environ.get("VIDEO_LSTM_CACHE")
    if own:
        return own
    shared = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(shared, "video-lstm")
