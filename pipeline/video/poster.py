"""One small picture that stands for a file, for pages that list many."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video.sources import open_source

WIDTH, HEIGHT = 160, 120
"""Pixels that a picture fits into."""
SKIPPED = 15
"""Frames passed over where there are as many: the first is often black, or bordered otherwise than the rest."""
QUALITY = 70


def poster(path: str) -> bytes:
    """A JPEG of at most 160 x 120 pixels of a video, an image or a folder of images: a frame near its beginning.

    Raises:
        VideoError: nothing decodes.
    """
    with open_source(path) as (source, _):
        picture = source.picture()
        for _ in range(SKIPPED):
            picture = None if picture is None else picture.copy()
            if not source.advance():
                break
            later = source.picture()
            picture = picture if later is None else later
        if picture is None:
            raise VideoError(path, Reason.NO_FRAME_DECODED)
        height, width = picture.shape[:2]
        scale = min(WIDTH / width, HEIGHT / height, 1.0)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise VideoError(path, Reason.NO_FRAME_DECODED)
    return np.asarray(jpeg).tobytes()
