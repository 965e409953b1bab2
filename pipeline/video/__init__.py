"""Video files by OpenCV: frames with their timestamps, moments to sample, optical flow.

No other room reads or writes video; `data/transforms.py` names OpenCV's interpolations to albumentations, no more.
"""


def use_one_thread() -> None:
    """Keep OpenCV to the calling thread, in a process that is one of several that share the cores."""
    import cv2

    cv2.setNumThreads(0)
