"""Video files by OpenCV: frames with their timestamps, moments to sample, optical flow.

No other room reads or writes video; `data/transforms.py` names OpenCV's interpolations to albumentations, no more.
"""

import os

# OpenCV takes a file for ended after this many packets of sound without a picture; 4096, its default, are the
# 95 seconds of a slide in a recorded talk. Read when the first frame is grabbed.
os.environ.setdefault("OPENCV_FFMPEG_READ_ATTEMPTS", str(1 << 30))


_alone = True


def use_one_thread() -> None:
    """Keep OpenCV and the decoders to the calling thread, in a process that is one of several that share the cores."""
    global _alone
    import cv2

    _alone = False
    cv2.setNumThreads(0)


def decoder_threads() -> int:
    """Threads for one decoder: the cores, at most 8; one in a process that shares them, where more are slower."""
    return min(os.cpu_count() or 1, 8) if _alone else 1
