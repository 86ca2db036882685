"""Stored pixel values of one frame, from every transfer syntax a scanner or archive sends.

Each decoder was chosen for how it takes damaged data (docs/adr/0024): what is sent to a node may be anything, and a
crash or a hang of the decoder is one of the worker.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from inference.codestream import size_of
from inference.dicom_values import VALUE_FAULTS, integer, text
from inference.errors import Unreadable

Stored = npt.NDArray[Any]

MAX_SIDE = 8192
_JPEG_LOSSY = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 52, 53, 54, 55, 56)}  # the retired processes included
# what the decoders are seen to raise on damaged data; numpy and the codecs share no root of their own
_FAILURES = (*VALUE_FAULTS, RuntimeError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How the values of a frame are stored (PS3.3 C.7.6.3)."""

    name: str
    rows: int
    columns: int
    allocated: int
    stored: int
    low_bit: int
    signed: bool
    frames: int

    @classmethod
    def of(cls, ds: Dataset) -> _Layout:
        """Read it from a header; raise Unreadable naming the first attribute that is absent or senseless."""
        name = text(ds, "SOPInstanceUID") or "An instance without UID"
        values = {k: integer(ds, k) for k in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")}
        rows, columns, allocated = (values[k] or 0 for k in ("Rows", "Columns", "BitsAllocated"))
        stored = values["BitsStored"] or allocated
        high = integer(ds, "HighBit")
        sound = {
            "Rows": 0 < rows <= MAX_SIDE,
            "Columns": 0 < columns <= MAX_SIDE,
            "BitsAllocated": allocated in (8, 16, 32),
            "BitsStored": 0 < stored <= allocated,
            "PixelRepresentation": values["PixelRepresentation"] in (0, 1),
        }
        for keyword, holds in sound.items():
            if not holds:
                raise Unreadable("undecodable", f"{name}: {keyword} is {values[keyword]}, which cannot be read.")
        return cls(
            name=name,
            rows=rows,
            columns=columns,
            allocated=allocated,
            stored=stored,
            low_bit=(stored - 1 if high is None else high) - stored + 1,
            signed=values["PixelRepresentation"] == 1,
            frames=max(1, integer(ds, "NumberOfFrames") or 1),
        )

    def dtype(self, order: str = "<") -> np.dtype[Any]:
        """The stored integer type."""
        return np.dtype(f"{order}{'i' if self.signed else 'u'}{self.allocated // 8}")


def stored_frame(ds: Dataset, frame: int) -> Stored:
    """Return the stored values ``[y, x]`` of a frame (counted from 0) in the data set's own integer type.

    Raises
    ------
    Unreadable
        ``no_pixels``, ``truncated``, ``undecodable``; the text names the SOP instance.
    """
    layout = _Layout.of(ds)
    content = ds.get("PixelData")
    if not isinstance(content, bytes) or not content:
        raise Unreadable("no_pixels", f"{layout.name} holds no pixel data, or its file is cut off before it.")
    syntax = UID(text(ds.file_meta, "TransferSyntaxUID") or "1.2.840.10008.1.2")
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise Unreadable("undecodable", f"{layout.name} is in a transfer syntax that is not of DICOM.")
    if not syntax.is_encapsulated:
        return _masked(_uncompressed(content, layout, frame, ">" if syntax == ExplicitVRBigEndian else "<"), layout)
    decoded = _decoded(ds, layout, frame, syntax)
    if decoded.shape != (layout.rows, layout.columns):
        raise Unreadable(
            "undecodable",
            f"{layout.name} decodes to {decoded.shape}, its header says {layout.rows} x {layout.columns}.",
        )
    return _as_stored(decoded, layout)


def _uncompressed(content: bytes, layout: _Layout, frame: int, order: str) -> Stored:
    kind, count = layout.dtype(order), layout.rows * layout.columns
    start = frame * count * kind.itemsize
    if len(content) < start + count * kind.itemsize:
        raise Unreadable(
            "truncated", f"{layout.name} holds {len(content)} bytes of pixel data, fewer than its size needs."
        )
    return np.frombuffer(content, kind, count, start).reshape(layout.rows, layout.columns)


def _decoded(ds: Dataset, layout: _Layout, frame: int, syntax: UID) -> Stored:
    try:
        content = get_frame(ds.PixelData, frame, number_of_frames=layout.frames)
        size = size_of(content)
        if size is not None and size != (layout.rows, layout.columns):
            raise Unreadable(
                "undecodable",
                f"{layout.name}: its codestream is {size[0]} x {size[1]}, its header {layout.rows} x {layout.columns}.",
            )
        if syntax == RLELossless:
            return _decode_rle(content, layout)
        if syntax in _JPEG_LOSSY:
            decoded: Stored = imagecodecs.jpeg8_decode(content)
            return decoded
        if size is None:
            raise ValueError("no codestream")
        return pixel_array(ds, index=frame)
    except _FAILURES as error:
        raise Unreadable(
            "undecodable", f"{layout.name}: pixel data in {syntax.name} cannot be decoded ({type(error).__name__})."
        ) from None


def _decode_rle(content: bytes, layout: _Layout) -> Stored:
    """RLE (PS3.5 Annex G): one PackBits segment for each byte of the value, the most significant first."""
    planes, *starts = struct.unpack("<16L", content[:64])
    if planes != layout.allocated // 8:
        raise ValueError("number of segments")
    bounds = [*starts[:planes], len(content)]
    count = layout.rows * layout.columns
    stored = np.empty((count, planes), np.uint8)
    for plane, (start, end) in enumerate(pairwise(bounds)):
        if not 64 <= start < end <= len(content):
            raise ValueError("segment offset")
        values = imagecodecs.packbits_decode(content[start:end], out=count)
        stored[:, planes - 1 - plane] = np.frombuffer(values, np.uint8, count)
    return stored.view(layout.dtype()).reshape(layout.rows, layout.columns)


def _as_stored(decoded: Stored, layout: _Layout) -> Stored:
    """Give decoded values the signedness of the header: codecs hand out two's complement as unsigned."""
    if layout.signed and decoded.dtype.kind == "u":
        return _masked(decoded.view(f"i{decoded.dtype.itemsize}"), layout)
    return decoded


def _masked(values: Stored, layout: _Layout) -> Stored:
    """Drop what lies above Bits Stored (old overlays), and extend the sign from there."""
    spare = values.dtype.itemsize * 8 - layout.stored
    if spare <= 0 or layout.low_bit != 0:
        return values
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    masked: Stored = (native << spare) >> spare
    return masked
