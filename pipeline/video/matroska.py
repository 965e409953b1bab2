"""What a Matroska or WebM file says of itself (RFC 9559): tracks, start, and whether all of it is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from pipeline.video.bitstream import avcc_is_interlaced, stream_is_interlaced

SEGMENT, INFO, TRACKS, CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
LEVEL_ONE = frozenset({INFO, TRACKS, CLUSTER, 0x114D9B74, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF})
"""Elements that may stand in a segment, with Void and CRC-32; anything else between them is damage."""

HDR_TRANSFERS = frozenset({16, 18})
_UNKNOWN = -1


@dataclass
class Segment:
    """A whole file.

    Attributes:
        video: whether a track is video; None where the list of tracks was not found.
        start: seconds of the first video packet; None where none was found.
        hdr, interlaced, encrypted: what the first video track says.
        damage: empty, or what is wrong with the structure; cut: whether that is a missing end.
    """

    video: bool | None = None
    start: float | None = None
    hdr: bool = False
    interlaced: bool = False
    encrypted: bool = False
    damage: str = ""
    cut: bool = False


def _number(data: bytes, position: int, keep: bool) -> tuple[int, int]:
    """An EBML variable-length number and the position behind it; `keep` leaves its marker (for identifiers)."""
    first = data[position]
    length = 9 - first.bit_length()
    if length > 8 or position + length > len(data):
        raise IndexError("no EBML number")
    value = int.from_bytes(data[position : position + length], "big")
    if not keep:
        value &= (1 << 7 * length) - 1
        if value == (1 << 7 * length) - 1:
            value = _UNKNOWN
    return value, position + length


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Identifier and content of each element; stops where the bytes are none."""
    found, position = [], 0
    while position < len(data):
        try:
            kind, position = _number(data, position, True)
            size, position = _number(data, position, False)
        except IndexError:
            break
        end = len(data) if size == _UNKNOWN else position + size
        found.append((kind, data[position:end]))
        position = end
    return found


def read_segment(file: BinaryIO, size: int) -> Segment:
    """Read what a file of `size` bytes says of itself; damage is noted, nothing is raised for it."""
    segment, scale, track = Segment(), 1_000_000, 0
    position, end, inside = 0, size, False
    while position < end:
        file.seek(position)
        head = file.read(12)
        try:
            kind, used = _number(head, 0, True)
            length, used = _number(head, used, False)
        except IndexError:
            _note(segment, position, size, head)
            break
        content = position + used
        if kind == SEGMENT:
            if length != _UNKNOWN and content + length > size:
                segment.damage, segment.cut = f"cut off, {content + length - size} bytes are missing", True
            end = size if length == _UNKNOWN else min(size, content + length)
            position, inside = content, True
            continue
        if inside and kind not in LEVEL_ONE:
            _note(segment, position, size, head)
            break
        if kind in (INFO, TRACKS):
            file.seek(content)
            elements = _children(file.read(min(length if length != _UNKNOWN else 1 << 20, 1 << 24)))
            if kind == INFO:
                scale = next((int.from_bytes(c, "big") for k, c in elements if k == 0x2AD7B1), scale)
            else:
                track = _tracks(elements, segment)
        elif kind == CLUSTER and segment.start is None and track:
            file.seek(content)
            segment.start = _first_block(file.read(1 << 20), track, scale)
        if length == _UNKNOWN:
            break
        position = content + length
    return segment


def _note(segment: Segment, position: int, size: int, head: bytes) -> None:
    """Bytes between elements that are none: damage, except zeros or a stump at the very end."""
    if not segment.damage and head.strip(b"\0") and position + 12 <= size:
        segment.damage = f"damaged at byte {position} of {size}"
    elif not segment.damage and size - position > 4096:
        segment.damage = f"filled with zeros from byte {position} of {size} on"


def _tracks(elements: list[tuple[int, bytes]], segment: Segment) -> int:
    """Describe the first video track; returns its number, 0 for none."""
    segment.video = False
    for kind, content in elements:
        entry = dict(reversed(_children(content))) if kind == 0xAE else {}
        if int.from_bytes(entry.get(0x83, b""), "big") != 1:
            continue
        segment.video = True
        picture = dict(reversed(_children(entry.get(0xE0, b""))))
        colour = dict(reversed(_children(picture.get(0x55B0, b""))))
        private, codec = entry.get(0x63A2, b""), entry.get(0x86, b"")
        segment.interlaced = int.from_bytes(picture.get(0x9A, b""), "big") == 1 or (
            avcc_is_interlaced(private) if codec == b"V_MPEG4/ISO/AVC" else stream_is_interlaced(private)
        )
        segment.hdr = int.from_bytes(colour.get(0x55BA, b""), "big") in HDR_TRANSFERS
        encodings = [c for k, e in _children(entry.get(0x6D80, b"")) if k == 0x6240 for c in _children(e)]
        segment.encrypted = any(k == 0x5035 for k, _ in encodings)
        return int.from_bytes(entry.get(0xD7, b""), "big")
    return 0


def _first_block(cluster: bytes, track: int, scale: int) -> float | None:
    """Seconds of a cluster's first block of a track; `cluster` may be longer than the cluster or cut."""
    base = 0
    for kind, content in _children(cluster):
        if kind == 0xE7:
            base = int.from_bytes(content, "big")
        elif kind == CLUSTER:
            return None
        block = content
        if kind == 0xA0:
            block = next((c for k, c in _children(content) if k == 0xA1), b"")
        elif kind != 0xA3:
            continue
        try:
            number, place = _number(block, 0, False)
        except IndexError:
            continue
        if number == track:
            return (base + int.from_bytes(block[place : place + 2], "big", signed=True)) * scale / 1e9
    return None
