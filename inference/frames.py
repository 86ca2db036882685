"""Frames of classic and enhanced images alike: an attribute from the frame's functional groups, the shared ones, or the
data set itself (PS3.3 C.7.6.16). Knows no files and no pixels.
"""

from __future__ import annotations

from typing import cast

from pydicom.dataset import Dataset

from inference import stacks
from inference.dicom_values import integer, number, numbers, text, texts


class Frame:
    """One frame of an image (the only one of a classic image)."""

    def __init__(self, ds: Dataset, shared: Dataset, own: Dataset) -> None:
        self._ds, self._shared, self._own = ds, shared, own

    def holder(self, sequence: str, keyword: str) -> Dataset:
        """The data set that has the attribute: an item of the functional group ``sequence``, else the image."""
        for groups in (self._own, self._shared):
            items = groups.get(sequence)
            if items and keyword in items[0]:
                return cast(Dataset, items[0])
        return self._ds

    def vector(self, sequence: str, keyword: str, length: int) -> tuple[float, ...] | None:
        """Exactly ``length`` numbers, else None."""
        return numbers(self.holder(sequence, keyword), keyword, length)

    def number(self, sequence: str, keyword: str) -> float | None:
        """A finite number, else None."""
        return number(self.holder(sequence, keyword), keyword)

    def integer(self, sequence: str, keyword: str) -> int | None:
        """A whole number, else None."""
        return integer(self.holder(sequence, keyword), keyword)

    def text(self, sequence: str, keyword: str) -> str:
        """A text, else ""."""
        return text(self.holder(sequence, keyword), keyword)

    def texts(self, sequence: str, keyword: str) -> tuple[str, ...]:
        """All values as texts."""
        return texts(self.holder(sequence, keyword), keyword)

    @property
    def position_mm(self) -> stacks.Vector3 | None:
        """Image Position (Patient)."""
        return cast("stacks.Vector3 | None", self.vector("PlanePositionSequence", "ImagePositionPatient", 3))

    @property
    def orientation(self) -> stacks.Vector6 | None:
        """Image Orientation (Patient)."""
        return cast("stacks.Vector6 | None", self.vector("PlaneOrientationSequence", "ImageOrientationPatient", 6))

    @property
    def pixel_spacing_mm(self) -> tuple[float, float] | None:
        """Pixel Spacing: between rows, between columns; None unless both are positive."""
        spacing = self.vector("PixelMeasuresSequence", "PixelSpacing", 2)
        return (spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None

    @property
    def echo_time_ms(self) -> float | None:
        """Echo time, effective where the image is enhanced."""
        effective = self.number("MREchoSequence", "EffectiveEchoTime")
        return effective if effective is not None else number(self._ds, "EchoTime")

    @property
    def inversion_time_ms(self) -> float | None:
        """Inversion time."""
        modified = self.number("MRModifierSequence", "InversionTimes")
        return modified if modified is not None else number(self._ds, "InversionTime")

    @property
    def b_value(self) -> float | None:
        """Diffusion b-value, s/mm2."""
        return self.number("MRDiffusionSequence", "DiffusionBValue")

    @property
    def frame_type(self) -> str:
        """Frame Type of an enhanced frame, else ""."""
        enhanced_mr = text(self._ds, "Modality") == "MR"
        sequence = "MRImageFrameTypeSequence" if enhanced_mr else "CTImageFrameTypeSequence"
        return "\\".join(self.texts(sequence, "FrameType"))

    @property
    def stack(self) -> str:
        """Stack ID and temporal position of an enhanced frame, "/" when it has neither."""
        time_index = self.text("FrameContentSequence", "TemporalPositionIndex")
        return f"{self.text('FrameContentSequence', 'StackID')}/{time_index}"


def frames_of(ds: Dataset) -> list[Frame]:
    """The frames of an image; a classic image has one."""
    shared_items = ds.get("SharedFunctionalGroupsSequence")
    shared = shared_items[0] if shared_items else Dataset()
    own = ds.get("PerFrameFunctionalGroupsSequence")
    return [Frame(ds, shared, item) for item in own] if own else [Frame(ds, shared, Dataset())]
