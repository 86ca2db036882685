"""Slices of received series as the browser draws them: 16-bit values, so that window and level work in the page."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_sr.preview import window_of
from inference.series_reader import Unreadable, read_volume
from inference.volume import Volume
from node.errors import Rejected

KEPT_SERIES = 3
INT16_MAX = 32767


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPixels:
    """A series as int16 ``[z, y, x]``; ``window`` is (centre, width) in the same numbers.

    ``unit`` is HU for CT and empty for MR, whose signal is scaled to fit 16 bits.
    """

    values: npt.NDArray[np.int16]
    window: tuple[float, float]
    unit: str
    aspect: float
    sop_instance_uids: tuple[str, ...]
    frame_numbers: tuple[int | None, ...]
    positions_mm: tuple[float, ...]


def series_pixels(files: Sequence[Path]) -> SeriesPixels:
    """Read a series for display; raise Rejected when it cannot be shown."""
    try:
        return _pixels(read_volume(files))
    except Unreadable as error:
        raise Rejected(error.code, error.text) from None
    except OSError as error:
        raise Rejected("unknown_file", f"the received files are gone ({error.strerror}); they were purged") from None


def _pixels(volume: Volume) -> SeriesPixels:
    centre, width = window_of(volume)
    largest = float(np.nanmax(np.abs(volume.voxels))) if volume.voxels.size else 0.0
    scale = 1.0 if volume.modality == "CT" or largest == 0 else INT16_MAX / largest
    values = np.clip(np.nan_to_num(volume.voxels) * scale, -INT16_MAX, INT16_MAX).astype(np.int16)
    _, row_mm, column_mm = volume.geometry.spacing_zyx_mm
    return SeriesPixels(
        values=values,
        window=(centre * scale, width * scale),
        unit="HU" if volume.modality == "CT" else "",
        aspect=row_mm / column_mm,
        sop_instance_uids=tuple(source.sop_instance_uid for source in volume.geometry.slices),
        frame_numbers=tuple(source.frame_number for source in volume.geometry.slices),
        positions_mm=tuple(round(float(position), 2) for position in volume.geometry.positions_mm),
    )


class PixelCache:
    """The last few series that were looked at; one thread reads a series, others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, SeriesPixels] = OrderedDict()

    def get(self, key: Hashable, read: Callable[[], SeriesPixels]) -> SeriesPixels:
        """The pixels kept under ``key``, read now when they are not there."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = read()
                while len(self._kept) > KEPT_SERIES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]
