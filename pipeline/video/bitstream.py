"""Whether coded pictures are interlaced, from the first bytes of H.264, MPEG-4 and MPEG-2 streams.

It matters because the FFmpeg inside OpenCV refuses to convert interlaced pictures, and OpenCV then hands out
whatever its buffer held before (seen in 5.0.0): such files must not be read by it.
"""

from __future__ import annotations

_HIGH = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""H.264 profiles whose parameter sets carry chroma format and scaling lists (7.3.2.1.1)."""

_PROFILES = _HIGH | {66, 77, 88}


class _Bits:
    """Reads bits and Exp-Golomb numbers; beyond the end it raises IndexError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def bit(self) -> int:
        value = self.data[self.position >> 3] >> (7 - (self.position & 7)) & 1
        self.position += 1
        return value

    def bits(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.bit()
        return value

    def unsigned(self) -> int:
        zeros = 0
        while not self.bit():
            zeros += 1
        return (1 << zeros) - 1 + self.bits(zeros)

    def signed(self) -> int:
        value = self.unsigned()
        return (value + 1) // 2 if value % 2 else -value // 2


def sps_is_interlaced(unit: bytes) -> bool:
    """Whether a sequence parameter set (NAL unit 7 of H.264, from its header byte on) allows fields."""
    try:
        return _allows_fields(_Bits(unit.replace(b"\0\0\3", b"\0\0")))
    except IndexError:
        return False


def _allows_fields(bits: _Bits) -> bool:
    bits.bits(8)
    profile = bits.bits(8)
    bits.bits(16)
    bits.unsigned()
    if profile in _HIGH:
        _skip_high(bits)
    bits.unsigned()
    order = bits.unsigned()
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.bit()
        bits.signed()
        bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()
    bits.unsigned()
    bits.bit()
    bits.unsigned()
    bits.unsigned()
    return not bits.bit()  # frame_mbs_only_flag


def _skip_high(bits: _Bits) -> None:
    chroma = bits.unsigned()
    if chroma == 3:
        bits.bit()
    bits.unsigned()
    bits.unsigned()
    bits.bit()
    if not bits.bit():
        return
    for index in range(12 if chroma == 3 else 8):
        if bits.bit():
            last = following = 8
            for _ in range(16 if index < 6 else 64):
                if following:
                    following = (last + bits.signed()) % 256
                last = following or last


def avcc_is_interlaced(configuration: bytes) -> bool:
    """The same for an AVCDecoderConfigurationRecord (ISO/IEC 14496-15), which holds parameter sets."""
    length = int.from_bytes(configuration[6:8], "big")
    return sps_is_interlaced(configuration[8 : 8 + length])


def _vol_is_interlaced(bits: _Bits) -> bool:
    """The interlaced flag of a video object layer of MPEG-4 part 2 (ISO/IEC 14496-2, 6.2.3)."""
    bits.bits(9)
    version = 1
    if bits.bit():
        version = bits.bits(4)
        bits.bits(3)
    if bits.bits(4) == 15:
        bits.bits(16)
    if bits.bit():
        bits.bits(3)
        if bits.bit():
            bits.bits(79)
    shape = bits.bits(2)
    if shape == 3 and version != 1:
        bits.bits(4)
    bits.bit()
    resolution = bits.bits(16)
    bits.bit()
    if bits.bit():
        bits.bits(max(1, (resolution - 1).bit_length()))
    if shape == 0:
        bits.bits(29)
    return bool(bits.bit())


def stream_is_interlaced(data: bytes) -> bool:
    """Whether the start of a stream with start codes holds interlaced MPEG-2, H.264 or MPEG-4."""
    place = data.find(b"\0\0\1")
    while 0 <= place < len(data) - 8:
        code, body = data[place + 3], data[place + 4 : place + 260]
        if code == 0xB5 and body[0] >> 4 == 1:
            return not body[1] & 0x08  # progressive_sequence of MPEG-2's sequence extension
        if code in (0x67, 0x27, 0x47) and body[0] in _PROFILES:
            return sps_is_interlaced(data[place + 3 : place + 260])
        # A layer comes right behind its object's start code; elsewhere these bytes are slices of H.264.
        if 0x20 <= code <= 0x2F and data[place - 4 : place - 1] == b"\0\0\1" and data[place - 1] <= 0x1F:
            try:
                return _vol_is_interlaced(_Bits(body))
            except IndexError:
                return False
        place = data.find(b"\0\0\1", place + 3)
    return False
