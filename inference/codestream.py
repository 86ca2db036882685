"""The picture size that a JPEG, JPEG-LS or JPEG 2000 codestream claims, read before a decoder is trusted with it.

A damaged size makes decoders allocate gigabytes or run for minutes; it is compared with the header's first.
"""

from __future__ import annotations

import struct

_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0-15 without DHT, JPG, DAC; SOF55 of JPEG-LS
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length: TEM, RST, SOI
_START_OF_SCAN = 0xDA


def size_of(content: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) of a codestream; None when it names none that can be found."""
    if content[:4] == b"\xff\x4f\xff\x51":
        return _jpeg_2000(content)
    if content[:2] == b"\xff\xd8":
        return _jpeg(content)
    return None


def _jpeg_2000(content: bytes) -> tuple[int, int] | None:
    """SIZ marker (ISO/IEC 15444-1 A.5.1): image extent less image offset."""
    if len(content) < 24:
        return None
    right, bottom, left, top = struct.unpack(">4L", content[8:24])
    return bottom - top, right - left


def _jpeg(content: bytes) -> tuple[int, int] | None:
    """Walk the marker segments to the frame header (ISO/IEC 10918-1 B.2.2)."""
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAME_MARKERS:
            rows, columns = struct.unpack(">2H", content[at + 5 : at + 9])
            return int(rows), int(columns)
        elif marker == _START_OF_SCAN:
            return None
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
