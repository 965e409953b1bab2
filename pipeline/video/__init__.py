"""Video files, images and folders of images as RGB frames with their timestamps. Only this room knows OpenCV.

OpenCV and its FFmpeg read their log levels once, at import: they are set here, before any module of the room
imports cv2, so that a damaged file gives one typed error instead of pages of decoder messages.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
