"""Frames of the stored heatmaps (secondary captures), exactly as the PACS has them."""

from __future__ import annotations

from pathlib import Path

import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import pixel_array

from dicom_sr.preview import png
from node.errors import Rejected


def heat_positions_mm(path: Path) -> list[float]:
    """Position along the normal of each frame of a heatmap; raise Rejected when the file is gone or broken."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError):
        raise _gone() from None
    vector = dataset.get("SliceLocationVector")
    if vector is None:
        return [float(dataset.SliceLocation)]
    return [float(position) for position in (vector if hasattr(vector, "__iter__") else [vector])]


def heat_png(path: Path, frame: int) -> bytes:
    """Frame ``frame`` (0-based) as PNG; raise Rejected when there is none."""
    if not 0 <= frame < len(heat_positions_mm(path)):
        raise Rejected("unknown_frame", "the heatmap has no such frame")
    return png(Image.fromarray(pixel_array(path, index=frame)))


def _gone() -> Rejected:
    return Rejected("unknown_file", "the heatmap's file is gone; it was purged after the PACS confirmed it")
