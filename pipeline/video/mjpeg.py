"""Motion JPEG, whose frames need no other frame: only those that are wanted are decoded.

OpenCV decodes every frame that it goes past. Here it is asked for packets instead, and each wanted packet is
handed back to it as a file of one frame, in memory: the same decoder, so the same pixels, to the bit.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from pipeline.video.capture import PACKETS, Capture, open_plain
from pipeline.video.times import Clock

SPARSE = 3
"""Of so many frames one at most is wanted, where this is worth it: opening costs as much as decoding one."""


class MotionJpeg:
    """A source at its first packet; see `capture.Capture`, which it takes the geometry and the start from."""

    seekable = False

    def __init__(self, packets: cv2.VideoCapture, source: Capture) -> None:
        """Args: packets: opened for packets, the first one grabbed; source: the same file, opened for frames."""
        self._packets, self._source = packets, source
        self.codec, self.marks, self.claimed = source.codec, source.marks, source.claimed
        self._clock = Clock(source.rate)
        self.time = self._clock.tick(source.stream_time(packets))

    @property
    def repaired(self) -> int:
        """Frames that were given a time."""
        return self._clock.repaired

    def advance(self) -> bool:
        """Go to the next packet; False at the end."""
        if not self._packets.grab():
            return False
        self.time = self._clock.tick(self._source.stream_time(self._packets))
        return True

    def picture(self) -> np.ndarray | None:
        """The current frame as shown, BGR uint8 (H, W, 3); None if it does not decode."""
        ok, packet = self._packets.retrieve()
        if not ok or packet is None or not packet.size:
            return None
        # OpenCV keeps no reference to the stream it reads from: it must live as long as the capture.
        stream = io.BytesIO(one_frame_avi(packet.tobytes(), *self._source.stored))
        try:
            capture = cv2.VideoCapture(stream, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])  # type: ignore[call-overload]
        except (TypeError, cv2.error):  # an OpenCV from before it read from memory
            return None
        try:
            ok, frame = capture.read()
        finally:
            capture.release()
            stream.close()
        if not ok or frame is None or (frame.shape[1], frame.shape[0]) != self._source.stored:
            return None
        return self._source.show(frame)

    def goes_on(self) -> bool:
        """Packets end where the file does."""
        return False

    def seek(self, time: float) -> bool:
        """Not offered: going past packets costs next to nothing."""
        return False


@contextmanager
def open_motion_jpeg(path: str, source: Capture) -> Iterator[MotionJpeg | None]:
    """The packets of a file that is open for frames; None where they cannot be had, or are turned when shown."""
    if source.codec.lower() != "mjpg" or "rotated" in source.marks:
        yield None
        return
    with open_plain(path, PACKETS) as packets:
        yield MotionJpeg(packets, source) if packets is not None and packets.grab() else None


def one_frame_avi(packet: bytes, width: int, height: int) -> bytes:
    """An AVI file of one Motion JPEG frame (RIFF; AVIMAINHEADER, AVISTREAMHEADER, BITMAPINFOHEADER)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    main = struct.pack("<14I", 40_000, 0, 0, 0, 1, 0, 1, 0, width, height, 0, 0, 0, 0)
    stream = struct.pack("<4s4sIHHIIIIIIII4H", b"vids", b"MJPG", 0, 0, 0, 0, 1, 25, 0, 1, 0, 0, 0, 0, 0, width, height)
    bitmap = struct.pack("<IIIHH4s5I", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    header = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", bitmap))
    lists = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + header) + chunk(b"LIST", b"movi" + chunk(b"00dc", packet))
    return chunk(b"RIFF", b"AVI " + lists)
