"""Stored pixel values of one frame, from every transfer syntax a scanner or archive sends.

imagecodecs decodes the JPEG and JPEG-LS families (two to three times as fast as the alternatives, and the retired JPEG
processes at all), pydicom with pylibjpeg the rest; where one fails the other is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian

from inference.errors import Unreadable

Stored = npt.NDArray[Any]

_BY_IMAGECODECS: dict[str, Callable[[bytes], Stored]] = {
    **{f"1.2.840.10008.1.2.4.{n}": imagecodecs.jpeg8_decode for n in (50, 51, 52, 53, 54, 55, 56)},
    **{f"1.2.840.10008.1.2.4.{n}": imagecodecs.ljpeg_decode for n in (57, 70)},
    **{f"1.2.840.10008.1.2.4.{n}": imagecodecs.jpegls_decode for n in (80, 81)},
}
_PYDICOM_FAILURES = (
    NotImplementedError,
    RuntimeError,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
    OSError,
    IndexError,
)


def stored_frame(ds: Dataset, frame: int) -> Stored:
    """Return the stored values ``[y, x]`` of a frame (counted from 0) in the data set's own integer type.

    Raises
    ------
    Unreadable
        ``no_pixels``, ``truncated``, ``undecodable``; the text names the SOP instance.
    """
    name = str(ds.get("SOPInstanceUID", "instance without UID"))
    if "PixelData" not in ds or not ds.PixelData:
        raise Unreadable("no_pixels", f"{name} holds no pixel data, or its file is cut off before it.")
    syntax = UID(str(ds.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")))
    if not syntax.is_encapsulated:
        return _uncompressed(ds, frame, syntax, name)
    decoded = _decoded(ds, frame, syntax, name)
    if decoded.shape != (ds.Rows, ds.Columns):
        raise Unreadable("undecodable", f"{name} decodes to {decoded.shape}, its header says {ds.Rows} x {ds.Columns}.")
    return _as_stored(decoded, ds)


def _uncompressed(ds: Dataset, frame: int, syntax: UID, name: str) -> Stored:
    allocated = int(ds.BitsAllocated)
    if allocated not in (8, 16, 32):
        raise Unreadable("undecodable", f"{name} has Bits Allocated {allocated}; 8, 16 and 32 can be read.")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    kind = np.dtype(f"{order}{'i' if ds.PixelRepresentation else 'u'}{allocated // 8}")
    count = ds.Rows * ds.Columns
    start = frame * count * kind.itemsize
    if len(ds.PixelData) < start + count * kind.itemsize:
        raise Unreadable(
            "truncated", f"{name} holds {len(ds.PixelData)} bytes of pixel data, fewer than its size needs."
        )
    values = np.frombuffer(ds.PixelData, kind, count, start).reshape(ds.Rows, ds.Columns)
    return _masked(values, ds)


def _decoded(ds: Dataset, frame: int, syntax: UID, name: str) -> Stored:
    faults = []
    for decode in (_decode_imagecodecs, _decode_pydicom):
        try:
            found = decode(ds, frame, syntax)
        except (*_PYDICOM_FAILURES, imagecodecs.DelayedImportError) as error:
            faults.append(type(error).__name__)
            continue
        if found is not None:
            return found
    raise Unreadable(
        "undecodable", f"{name}: pixel data in {syntax.name} cannot be decoded ({', '.join(faults) or 'no decoder'})."
    )


def _decode_imagecodecs(ds: Dataset, frame: int, syntax: UID) -> Stored | None:
    decode = _BY_IMAGECODECS.get(syntax)
    if decode is None:
        return None
    frames = int(ds.get("NumberOfFrames", 1) or 1)
    return decode(get_frame(ds.PixelData, frame, number_of_frames=frames))


def _decode_pydicom(ds: Dataset, frame: int, syntax: UID) -> Stored | None:
    return pixel_array(ds, index=frame)


def _as_stored(decoded: Stored, ds: Dataset) -> Stored:
    """Give decoded values the signedness of the header: codecs hand out two's complement as unsigned."""
    if ds.PixelRepresentation and decoded.dtype.kind == "u":
        return _masked(decoded.astype(f"i{decoded.dtype.itemsize}") if decoded.dtype.itemsize > 1 else decoded, ds)
    return decoded


def _masked(values: Stored, ds: Dataset) -> Stored:
    """Drop what lies above Bits Stored (old overlays), and extend the sign from there."""
    spare = values.dtype.itemsize * 8 - int(ds.BitsStored)
    low = int(ds.get("HighBit", ds.BitsStored - 1)) - int(ds.BitsStored) + 1
    if spare <= 0 or low != 0:
        return values
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return (native << spare) >> spare
