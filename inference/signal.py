"""Stored values -> HU (CT) or signal (MR): rescale, padding, inversion, wrapped and clipped values.

Repairs are made only on evidence from the pixels, and each leaves a note.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from inference.dicom_values import integer, number, text
from inference.frames import Frame
from inference.pixels import Stored
from inference.volume import FloatArray

AIR_HU = -1000.0
_LOWEST_HU = -1024.0
_WRAP = 4096
_WRAPPED_FROM = 2600  # -1496 HU after unwrapping; bone and metal of a head seldom come near
_WRAPPED_SHARE = 0.15  # air is a third of a head image; nothing else is so bright and so large


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReader:
    """How the stored values of one series are to be read; decided once, on its middle slice."""

    modality: str
    padding: int | None
    wrapped: bool
    inverted_from: int | None  # stored value v reads as inverted_from - v
    default_intercept: float
    rescale_missing: bool

    @classmethod
    def of(cls, ds: Dataset, middle: Stored) -> SignalReader:
        """Decide from a header and the stored values of the middle slice."""
        modality = text(ds, "Modality")
        intercept = number(ds, "RescaleIntercept")
        enhanced = "SharedFunctionalGroupsSequence" in ds
        missing = modality == "CT" and intercept is None and not enhanced
        # air is the lowest value of a head CT: when that is not negative, the usual offset was left out
        default = -1024.0 if missing and int(middle.min()) >= 0 else 0.0
        return cls(
            modality=modality,
            padding=_padding(ds, middle),
            wrapped=modality == "CT" and _is_wrapped(ds, middle, default if intercept is None else intercept),
            inverted_from=_inversion(ds, middle),
            default_intercept=default,
            rescale_missing=missing,
        )

    def convert(self, stored: Stored, frame: Frame, out: FloatArray) -> None:
        """Write HU or signal of one slice into ``out`` ``[y, x]``."""
        slope = frame.number("PixelValueTransformationSequence", "RescaleSlope")
        intercept = frame.number("PixelValueTransformationSequence", "RescaleIntercept")
        out[...] = stored
        if self.inverted_from is not None:
            np.subtract(self.inverted_from, out, out=out)
        if self.wrapped:
            out[stored >= _WRAPPED_FROM] -= _WRAP
        if slope and slope != 1.0:
            out *= slope
        offset = self.default_intercept if intercept is None else intercept
        if offset:
            out += np.float32(offset)
        if self.padding is not None:
            out[stored == self.padding] = AIR_HU if self.modality == "CT" else 0.0
        if self.modality == "CT":
            np.maximum(out, _LOWEST_HU, out=out)

    def finish(self, voxels: FloatArray) -> list[str]:
        """Return the notes on the values, having seen the whole volume."""
        remarks = {
            "unwrapped_12_bit": self.wrapped,
            "monochrome1_inverted": self.inverted_from is not None,
            "rescale_missing": self.rescale_missing,
            "hu_clipped": self.modality == "CT" and is_clipped(voxels),
        }
        return [code for code, holds in remarks.items() if holds]


def is_clipped(voxels_hu: FloatArray) -> bool:
    """Whether an exporter cut the HU range to a window: no partial volume at the skin, or no range of bone.

    In a scan as it was made, skin and fat leave voxels all the way from air to water, and bone from 150 to 800 HU.
    """
    step = max(1, voxels_hu.shape[1] // 128)
    sample = voxels_hu[::2, ::step, ::step]
    if sample.size == 0:
        return False
    soft = float(np.mean((sample > -20) & (sample < 150)))
    edge = float(np.mean((sample > -900) & (sample < -150)))
    bone = float(np.mean((sample > 150) & (sample < 800)))
    return soft > 0.02 and (edge < 0.01 * soft or bone < 0.003 * soft)


def _corners(middle: Stored) -> Stored:
    size = max(1, min(middle.shape) // 32)
    blocks = [middle[y, x] for y in (slice(size), slice(-size, None)) for x in (slice(size), slice(-size, None))]
    return np.concatenate([block.ravel() for block in blocks])


def _padding(ds: Dataset, middle: Stored) -> int | None:
    """Pixel Padding Value (0028,0120), when the pixels bear it out: it fills the corners, or is no possible HU.

    Some headers name 0 as padding where 0 HU is fluid.
    """
    value = integer(ds, "PixelPaddingValue")
    if value is None:
        return None
    if middle.dtype.kind == "i" and value >= 1 << (8 * middle.dtype.itemsize - 1):
        value -= 1 << (8 * middle.dtype.itemsize)  # written as US beside signed pixels
    if not np.any(middle == value):
        return None
    hu = value * (number(ds, "RescaleSlope") or 1.0) + (number(ds, "RescaleIntercept") or 0.0)
    fills_corners = float(np.mean(_corners(middle) == value)) > 0.5
    return value if fills_corners or hu < -1100 or hu > 4000 else None


def _is_wrapped(ds: Dataset, middle: Stored, intercept: float) -> bool:
    """12-bit unsigned values of a signed scan, negative ones wrapped to the top (as in some files of RSNA 2019)."""
    if middle.dtype.kind != "u" or intercept < -100 or int(middle.max()) >= _WRAP:
        return False
    return float(np.mean(middle >= _WRAPPED_FROM)) > _WRAPPED_SHARE


def _inversion(ds: Dataset, middle: Stored) -> int | None:
    """MONOCHROME1 says how to display; only where the background is the brightest are the values inverted too."""
    if text(ds, "PhotometricInterpretation") != "MONOCHROME1":
        return None
    centre = middle[middle.shape[0] // 4 : -middle.shape[0] // 4, middle.shape[1] // 4 : -middle.shape[1] // 4]
    if float(np.median(_corners(middle))) <= float(np.median(centre)):
        return None
    stored_bits = integer(ds, "BitsStored") or 16
    return -1 if middle.dtype.kind == "i" else (1 << stored_bits) - 1
