"""What an MP4 or QuickTime file says of itself (ISO/IEC 14496-12): its samples, where they lie, when they begin.

Read with our own few lines because OpenCV tells none of it: which samples lie beyond the end of a cut file, at
what time the stream starts, whether the pictures are HDR.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from pipeline.video.bitstream import avcc_is_interlaced, stream_is_interlaced

LARGEST_INDEX = 1 << 28
"""Bytes of the largest index (moov) that is read; 24 hours of video need a hundredth of it."""

HDR_TRANSFERS = frozenset({16, 18})
"""Transfer characteristics of ITU-T H.273: 16 is PQ (SMPTE ST 2084), 18 is HLG."""

Box = tuple[str, memoryview]


@dataclass
class Track:
    """One video track.

    Attributes:
        samples: frames that the file has an entry for; present: those whose bytes are inside the file.
        start: seconds at which its first packet is shown; None where that is not known.
        hdr, interlaced, encrypted: what the sample description says.
        matrix: (a, b, c, d): a pixel at (x, y) is shown at (a x + c y, b x + d y) plus a shift.
    """

    samples: int = 0
    present: int = 0
    start: float | None = None
    hdr: bool = False
    interlaced: bool = False
    encrypted: bool = False
    matrix: tuple[int, int, int, int] = (1, 0, 0, 1)


@dataclass
class Movie:
    """A whole file.

    Attributes:
        index: whether the index (moov) is there and complete.
        overrun: name of a box that should end beyond the end of the file, and by how many bytes; "" and 0.
        video: the first video track, which OpenCV decodes; None where there is none.
    """

    index: bool = False
    overrun: tuple[str, int] = ("", 0)
    video: Track | None = None
    fragments: list[memoryview] = field(default_factory=list)


def boxes(data: memoryview) -> Iterator[Box]:
    """The boxes of a stretch of bytes; stops where the bytes are no box."""
    position = 0
    while position + 8 <= len(data):
        size, header = int.from_bytes(data[position : position + 4], "big"), 8
        kind = bytes(data[position + 4 : position + 8]).decode("latin-1")
        if size == 1 and position + 16 <= len(data):
            size, header = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif size == 0:
            size = len(data) - position
        if size < header or position + size > len(data):
            return
        yield kind, data[position + header : position + size]
        position += size


def find(data: memoryview, *path: str) -> memoryview | None:
    """The content of the first box under a path such as ("mdia", "minf")."""
    for kind, content in boxes(data):
        if kind == path[0]:
            return content if len(path) == 1 else find(content, *path[1:])
    return None


def read_movie(file: BinaryIO, size: int) -> Movie:
    """Read what a file of `size` bytes says of itself; what is damaged is left out, nothing is raised for it."""
    movie, position, moov = Movie(), 0, None
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, header = int.from_bytes(head[:4], "big"), 8
        kind = head[4:8].decode("latin-1")
        if length == 1 and len(head) == 16:
            length, header = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:
            length = size - position
        if length < header or not kind.isprintable():
            break
        if position + length > size:
            movie.overrun = (kind, position + length - size)
            break
        if kind in ("moov", "moof") and length <= LARGEST_INDEX:
            file.seek(position + header)
            content = memoryview(file.read(length - header))
            if kind == "moof":
                movie.fragments.append(content)
            elif moov is None:
                moov = content
        position += length
    if moov is not None:
        movie.index = True
        try:
            movie.video = _video_track(moov, movie.fragments, size)
        except (struct.error, ValueError, IndexError, OverflowError):
            # An index with broken tables: the decoder has the last word on it.
            movie.video = Track()
    return movie


def _video_track(moov: memoryview, fragments: list[memoryview], size: int) -> Track | None:
    for kind, trak in boxes(moov):
        handler = find(trak, "mdia", "hdlr") if kind == "trak" else None
        if handler is not None and bytes(handler[8:12]) == b"vide":
            table = find(trak, "mdia", "minf", "stbl")
            track = Track() if table is None else _describe(table)
            track.matrix = _matrix(trak)
            if table is not None:
                _count(table, track, size)
                _start(moov, trak, table, fragments, track)
            return track
    return None


def _describe(table: memoryview) -> Track:
    """The sample description: an entry's 78 fixed bytes, then boxes."""
    track, description = Track(), find(table, "stsd")
    if description is None:
        return track
    for kind, entry in boxes(description[8:]):
        track.encrypted = kind == "encv"
        for name, content in boxes(entry[78:]):
            if name == "colr" and bytes(content[:4]) in (b"nclx", b"nclc"):
                track.hdr |= int.from_bytes(content[6:8], "big") in HDR_TRANSFERS
            elif name in ("dvcC", "dvvC"):
                track.hdr = True
            elif name == "fiel":
                track.interlaced |= content[0] == 2
            elif name == "avcC":
                track.interlaced |= avcc_is_interlaced(bytes(content))
            elif name == "esds":
                track.interlaced |= stream_is_interlaced(bytes(content))
        break
    return track


def _matrix(trak: memoryview) -> tuple[int, int, int, int]:
    """The track's matrix in whole numbers (fixed point 16.16 in the file); identity where it is no such thing."""
    header = find(trak, "tkhd")
    place = 0 if header is None else 52 if header[0] == 1 else 40
    if header is None or len(header) < place + 36:
        return 1, 0, 0, 1
    a, b, _, c, d = struct.unpack(">5i", header[place : place + 20])
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    turned = signs[0] == signs[3] == 0 and 0 not in (signs[1], signs[2])
    straight = signs[1] == signs[2] == 0 and 0 not in (signs[0], signs[3])
    return signs if turned or straight else (1, 0, 0, 1)  # type: ignore[return-value]


def _numbers(table: memoryview, name: str, columns: int, kind: str = ">u4") -> np.ndarray:
    """The entries of a table box as int64 (N, columns); empty where there is none. No more than really fit."""
    content = find(table, name)
    if content is None or len(content) < 8:
        return np.zeros((0, columns), np.int64)
    width = np.dtype(kind).itemsize * columns
    count = min(int.from_bytes(content[4:8], "big"), (len(content) - 8) // width)
    return np.frombuffer(content[8 : 8 + count * width], kind).reshape(count, columns).astype(np.int64)


def _sizes(table: memoryview) -> np.ndarray:
    """Bytes of every sample, int64 (N,)."""
    content = find(table, "stsz")
    if content is None or len(content) < 12:
        return np.zeros(0, np.int64)
    same, count = struct.unpack(">II", content[4:12])
    if same:
        return np.full(min(count, 1 << 24), same, np.int64)
    return np.frombuffer(content[12 : 12 + 4 * min(count, (len(content) - 12) // 4)], ">u4").astype(np.int64)


def _count(table: memoryview, track: Track, size: int) -> None:
    """How many samples the table lists and how many of them end inside the file."""
    sizes, runs = _sizes(table), _numbers(table, "stsc", 3)
    chunks = _numbers(table, "stco", 1)[:, 0]
    if not len(chunks):
        chunks = _numbers(table, "co64", 1, ">u8")[:, 0]
    track.samples = track.present = len(sizes)
    if not len(sizes) or not len(chunks) or not len(runs):
        return
    lengths = np.diff(np.append(runs[:, 0], len(chunks) + 1))
    per_chunk = np.repeat(runs[:, 1], np.clip(lengths, 0, len(chunks)))[: len(chunks)]
    first = np.concatenate([[0], np.cumsum(per_chunk)])
    chunk_of = np.searchsorted(first, np.arange(len(sizes)), side="right") - 1
    known = chunk_of < len(per_chunk)
    chunk_of = np.minimum(chunk_of, len(per_chunk) - 1)
    ends = np.cumsum(sizes)
    before = np.concatenate([[0], ends])[np.minimum(first[chunk_of], len(sizes))]
    track.present = int((known & (chunks[chunk_of] + ends - before <= size)).sum())


def _start(moov: memoryview, trak: memoryview, table: memoryview, fragments: list[memoryview], track: Track) -> None:
    """When the first sample is shown: as the edit list says, else its own composition time."""
    header, movie_header = find(trak, "mdia", "mdhd"), find(moov, "mvhd")
    if header is None or movie_header is None:
        return
    scale, movie_scale = _timescale(header), _timescale(movie_header)
    if not scale or not movie_scale:
        return
    empty, begin = _edits(trak, movie_scale)
    if track.samples:
        # An edit begins at its first picture, even where its media time falls between two.
        if begin is not None:
            track.start = empty
        else:
            shifts = _numbers(table, "ctts", 2, ">i4")
            track.start = float(shifts[0, 1] if len(shifts) else 0) / scale + empty
    else:
        time = _first_fragment(moov, trak, fragments)
        if time is not None:
            track.start = (time - (begin or 0)) / scale + empty


def _timescale(header: memoryview) -> int:
    return int.from_bytes(header[20:24] if header[0] == 1 else header[12:16], "big")


def _edits(trak: memoryview, movie_scale: int) -> tuple[float, int | None]:
    """Seconds of emptiness before the first edit, and the media time that it begins with (None: no edits)."""
    content, empty = find(trak, "edts", "elst"), 0.0
    if content is None:
        return 0.0, None
    long = content[0] == 1
    width, form = (20, ">Qqi") if long else (12, ">Iii")
    for index in range(int.from_bytes(content[4:8], "big")):
        entry = content[8 + index * width : 8 + (index + 1) * width]
        if len(entry) < width:
            break
        duration, begin, _ = struct.unpack(form, entry)
        if begin >= 0:
            return empty, begin
        empty += duration / movie_scale
    return empty, None


def _first_fragment(moov: memoryview, trak: memoryview, fragments: list[memoryview]) -> int | None:
    """Composition time of a fragmented track's first sample, in its timescale."""
    header = find(trak, "tkhd")
    if header is None:
        return None
    number = int.from_bytes(header[20:24] if header[0] == 1 else header[12:16], "big")
    for fragment in fragments:
        for kind, traf in boxes(fragment):
            head = find(traf, "tfhd") if kind == "traf" else None
            if head is None or int.from_bytes(head[4:8], "big") != number:
                continue
            base, run = find(traf, "tfdt"), find(traf, "trun")
            if run is None:
                continue
            decode = 0 if base is None else int.from_bytes(base[4 : 12 if base[0] == 1 else 8], "big")
            flags = int.from_bytes(run[1:4], "big")
            if not flags & 0x800:
                return decode
            # Optional fields before the first sample's, then inside it before the composition offset.
            place = 8 + 4 * bool(flags & 0x1) + 4 * bool(flags & 0x4)
            place += 4 * sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400))
            return decode + int.from_bytes(run[place : place + 4], "big", signed=run[0] == 1)
    return None
