"""What a video file says of itself, read from its structure without decoding: is all of it there, does it hold
video at all, when does it start.

Nothing here decides what is read: frames and times come from the decoder. It says why a file gives none, or
fewer than it should, and adds the start that OpenCV subtracts from every time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.video.bitstream import avcc_is_interlaced, stream_is_interlaced
from pipeline.video.matroska import read_segment
from pipeline.video.mp4 import read_movie

HEAD = 1 << 20
"""Bytes at the start in which transport and program streams are searched for their first picture."""

_TOP_BOXES = frozenset("ftyp moov mdat free skip wide styp sidx moof pnot uuid".split())

_DV = frozenset((b"dvsd", b"dvcp", b"dv25", b"dv50", b"dvpp", b"dvc "))
"""Codes of DV, whose pictures are always interlaced."""

_AUDIO = (b"ID3", b"fLaC")


@dataclass(frozen=True)
class Structure:
    """What the structure says.

    Attributes:
        kind: "mp4", "matroska", "avi", "flv", "ts", "ps", "ivf", "asf", "audio"; "" for what is none of them.
        video: whether there is a video stream; None where the structure does not say.
        damage: empty, or what is wrong with the structure, in a few words; cut: whether its end is missing.
        samples: frames that the file's own table lists; None where it has no such table.
        start: seconds of the first video packet; None where that is not known.
        marks: "hdr", "interlaced".
        encrypted: whether the video is.
        matrix: how an MP4 file wants its pictures turned and mirrored, see `mp4.Track`.
    """

    kind: str = ""
    video: bool | None = None
    damage: str = ""
    cut: bool = False
    samples: int | None = None
    start: float | None = None
    marks: tuple[str, ...] = ()
    encrypted: bool = False
    matrix: tuple[int, int, int, int] = (1, 0, 0, 1)


def read_structure(path: str) -> Structure:
    """The structure of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(64)
        file.seek(0)
        if head[4:8].decode("latin-1") in _TOP_BOXES:
            return _mp4(file, size)
        if head[:4] == b"\x1aE\xdf\xa3":
            return _matroska(file, size)
        if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
            return _avi(file, size)
        if head[:3] == b"FLV":
            return _flv(file, size)
        if head[:4] == b"DKIF":
            return _ivf(file, size)
        if head[:4] == b"\x30\x26\xb2\x75":
            return _asf(file, size)
        if (head[:4] == b"RIFF" and head[8:12] == b"WAVE") or head.startswith(_AUDIO):
            return Structure("audio", video=False)
        data = file.read(HEAD)
    if data[:4] == b"\0\0\1\xba":
        return Structure("ps", start=_first_pes(data), marks=_marks(False, stream_is_interlaced(data)))
    for offset, step in ((0, 188), (4, 192)):
        if len(data) > offset + step and data[offset] == data[offset + step] == 0x47:
            return _ts(data, offset, step)
    return Structure(marks=_marks(False, data[:3] == b"\0\0\1" and stream_is_interlaced(data)))


def _marks(hdr: bool, interlaced: bool) -> tuple[str, ...]:
    return ("hdr",) * hdr + ("interlaced",) * interlaced


def _mp4(file: BinaryIO, size: int) -> Structure:
    movie = read_movie(file, size)
    name, excess = movie.overrun
    if not movie.index:
        # Without its index nothing in the file can be decoded. A file that ends at a box was written like that.
        damage = f"cut off: {name} misses {excess} bytes, there is no index (moov)" if name else ""
        return Structure("mp4", damage=damage or "there is no index (moov)", cut=bool(name))
    if movie.video is None:
        return Structure("mp4", video=False)
    track, damage = movie.video, ""
    if track.present < track.samples:
        damage = f"cut off: {track.samples - track.present} of {track.samples} frames lie beyond the file's end"
    elif name and movie.fragments:
        damage = f"cut off: {name} misses {excess} bytes"
    samples = track.samples if track.samples and not movie.fragments else None
    marks = _marks(track.hdr, track.interlaced)
    return Structure("mp4", True, damage, bool(damage), samples, track.start, marks, track.encrypted, track.matrix)


def _matroska(file: BinaryIO, size: int) -> Structure:
    segment = read_segment(file, size)
    marks = _marks(segment.hdr, segment.interlaced)
    return Structure(
        "matroska", segment.video, segment.damage, segment.cut, None, segment.start, marks, segment.encrypted
    )


def _avi(file: BinaryIO, size: int) -> Structure:
    """RIFF lists up to the frames (movi); a list that ends beyond the end of the file was cut."""
    video, dv, damage, position = False, False, "", 12
    while position + 12 <= size and not damage:
        file.seek(position)
        name, length, kind = struct.unpack("<4sI4s", file.read(12))
        # A recorder that lost power leaves 0 in sizes that it would have filled in at the end.
        if name in (b"LIST", b"RIFF") and (position + 8 + length > size or length == 0):
            damage = f"cut off: {kind.decode('latin-1').strip()} misses {position + 8 + length - size} bytes"
            damage = damage if length else "cut off: its sizes were never written"
        if name == b"LIST" and kind == b"hdrl":
            header = file.read(min(length, HEAD))
            place = header.find(b"vids")
            video, dv = place >= 0, header[place + 4 : place + 8].lower() in _DV
        if kind == b"movi" and name == b"LIST":
            break
        if not name.strip(b"\0"):
            break
        position += 12 if name == b"RIFF" else 8 + length + length % 2
    # Frames begin where the lists were left; their first bytes carry the stream's headers.
    file.seek(min(position, size))
    interlaced = stream_is_interlaced(file.read(1 << 16)) or dv
    return Structure("avi", video, damage, bool(damage), None, 0.0, _marks(False, interlaced))


def _flv(file: BinaryIO, size: int) -> Structure:
    """Tags: the first picture's time; the last four bytes tell where the last tag began, if nothing was cut."""
    position, start = int.from_bytes(file.read(9)[5:9], "big") + 4, None
    interlaced = False
    while position + 16 <= size and position < HEAD:
        file.seek(position)
        tag = file.read(16)
        if tag[0] & 0x1F == 9 and not (tag[11] & 0x0F == 7 and tag[12] != 1):
            milliseconds = int.from_bytes(tag[7:8] + tag[4:7], "big")
            shift = int.from_bytes(tag[13:16], "big", signed=True) if tag[11] & 0x0F == 7 else 0
            start = (milliseconds + shift) / 1000
            break
        if tag[0] & 0x1F == 9:
            interlaced |= avcc_is_interlaced(file.read(512))
        position += 15 + int.from_bytes(tag[1:4], "big")
    damage = ""
    if size > 32:
        file.seek(size - 4)
        length = int.from_bytes(file.read(4), "big")
        file.seek(max(0, size - 4 - length))
        whole = 11 <= length < size and int.from_bytes(file.read(4)[1:], "big") == length - 11
        damage = "" if whole else "cut off: its last tag is not whole"
    return Structure("flv", None, damage, bool(damage), None, start, _marks(False, interlaced))


def _ivf(file: BinaryIO, size: int) -> Structure:
    header = file.read(44)
    if len(header) < 44:
        return Structure("ivf", True, "cut off: it ends in its header", True)
    rate, scale = struct.unpack("<II", header[16:24])
    time = int.from_bytes(header[36:44], "little")
    position, found = 32, 0
    while position + 12 <= size:
        file.seek(position)
        position += 12 + int.from_bytes(file.read(4), "little")
        found += position <= size
    damage = "cut off: its last frame is not whole" if position > size else ""
    return Structure("ivf", True, damage, bool(damage), None, time * scale / rate if rate else 0.0)


def _asf(file: BinaryIO, size: int) -> Structure:
    """The file properties object tells the size the whole file had."""
    head = file.read(HEAD)
    place = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    claimed = int.from_bytes(head[place + 40 : place + 48], "little") if place >= 0 else 0
    # Broadcasts (flag 1) leave 0 or anything there.
    streamed = place >= 0 and head[place + 88 : place + 89] != b"" and head[place + 88] & 1
    damage = f"cut off: {claimed - size} bytes are missing" if claimed > size and not streamed else ""
    video = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b") in head if place >= 0 else None
    return Structure("asf", video, damage, bool(damage))


def _first_pes(data: bytes) -> float | None:
    """Seconds of the first video packet that carries a time, in a program stream."""
    place = data.find(b"\0\0\1")
    while 0 <= place < len(data) - 32:
        if 0xE0 <= data[place + 3] <= 0xEF:
            time = _pes_time(data[place : place + 64])
            if time is not None:
                return time
        place = data.find(b"\0\0\1", place + 3)
    return None


def _pes_time(packet: bytes) -> float | None:
    """Presentation time of a PES packet of MPEG-2 or MPEG-1; None where it carries none."""
    position = 6
    if len(packet) < 24:
        return None
    if packet[6] >> 6 == 2:
        if not packet[7] & 0x80:
            return None
        position = 9
    else:
        while position < len(packet) - 8 and packet[position] == 0xFF:
            position += 1
        if packet[position] >> 6 == 1:
            position += 2
        if packet[position] >> 4 not in (2, 3):
            return None
    a, b, c, d, e = packet[position : position + 5]
    return ((a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1) / 90_000


def _ts(data: bytes, offset: int, step: int) -> Structure:
    """The first video PES of a transport stream, in whatever program."""
    start, picture = None, b""
    stream = -1
    for place in range(offset, len(data) - 187, step):
        packet = data[place : place + 188]
        if packet[0] != 0x47:
            break
        number = int.from_bytes(packet[1:3], "big") & 0x1FFF
        payload = packet[4:]
        if packet[3] & 0x20:
            payload = packet[5 + packet[4] :]
        if packet[1] & 0x40 and payload[:3] == b"\0\0\1" and 0xE0 <= payload[3] <= 0xEF and stream in (-1, number):
            stream = number
            if start is None:
                start = _pes_time(payload)
        if number == stream and len(picture) < 1 << 17:
            picture += payload
    return Structure("ts", start=start, marks=_marks(False, stream_is_interlaced(picture)))
