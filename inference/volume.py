"""One image volume and where it lies in the patient.

Knows nothing of files, networks or models. Arrays are ``[z, y, x]``, read-only; positions are millimetres in the
DICOM patient frame (LPS: x to the patient's left, y to posterior, z to the head; PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSource:
    """The SOP instance, and its frame (1-based) when it has several, that a slice was read from."""

    sop_instance_uid: str
    sop_class_uid: str
    frame_number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Where the voxels of an array ``[z, y, x]`` lie.

    Attributes
    ----------
    shape_zyx
        Number of slices, rows, columns.
    affine_lps_mm
        4x4, maps ``(z, y, x, 1)`` voxel indices (voxel centres) to ``(x, y, z, 1)`` in mm, LPS.
    frame_of_reference_uid
        Empty when the source has none.
    slices
        One source per z.
    positions_mm
        Position of each slice along the normal, ascending with z; spacing may be irregular, the affine then holds
        the median step.
    """

    shape_zyx: tuple[int, int, int]
    affine_lps_mm: npt.NDArray[np.float64]
    frame_of_reference_uid: str
    slices: tuple[SliceSource, ...]
    positions_mm: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.slices) != self.shape_zyx[0] or len(self.positions_mm) != self.shape_zyx[0]:
            raise ValueError(
                f"{self.shape_zyx[0]} slices, but {len(self.slices)} sources, {len(self.positions_mm)} positions"
            )
        if self.affine_lps_mm.shape != (4, 4):
            raise ValueError(f"affine must be 4x4, not {self.affine_lps_mm.shape}")
        self.affine_lps_mm.setflags(write=False)

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along z, y, x in mm."""
        step = np.linalg.norm(self.affine_lps_mm[:3, :3], axis=0)
        return float(step[0]), float(step[1]), float(step[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Voxels ``[z, y, x]`` float32 with their geometry: HU for CT, raw signal for MR.

    ``notes`` are coded remarks of the reader (``hu_clipped``, ``irregular_spacing``, ``missing_slices`` ...) that the
    models and the report may need; ``attributes`` are the few header values models use (modality, echo time ...).
    """

    voxels: FloatArray
    geometry: Geometry
    modality: str
    notes: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.voxels.dtype != np.float32 or self.voxels.shape != self.geometry.shape_zyx:
            raise ValueError(
                f"voxels are {self.voxels.dtype} {self.voxels.shape}, geometry says {self.geometry.shape_zyx}"
            )
        self.voxels.setflags(write=False)
