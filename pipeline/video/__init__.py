"""Video files by OpenCV, and nothing else knows it: frames with their timestamps, moments to sample, optical flow."""


def use_one_thread() -> None:
    """Keep OpenCV to the calling thread, in a process that is one of several that share the cores."""
    import cv2

    cv2.setNumThreads(0)
