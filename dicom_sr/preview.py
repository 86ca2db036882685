"""One slice as a picture: grey anatomy with the heatmap blended over it, for the capture, the demo and the pages."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.result import Heatmap
from inference.volume import Volume

Window = tuple[float, float]

CT_BRAIN_WINDOW: Window = (40.0, 80.0)
HEAT_FLOOR = 0.25
HEAT_OPACITY = 0.5
_STOPS = (0.0, 0.5, 0.75, 1.0)
_COLOURS = np.array([(90, 0, 0), (230, 50, 0), (255, 150, 0), (255, 240, 120)], dtype=np.float64)


def window_of(volume: Volume) -> Window:
    """Return (centre, width) to show a volume with: the brain window for CT, the 1st to 99.5th percentile for MR."""
    if volume.modality == "CT":
        return CT_BRAIN_WINDOW
    step = max(1, volume.voxels.size // 1_000_000)
    finite = volume.voxels.ravel()[::step]
    finite = finite[np.isfinite(finite)]
    low, high = np.percentile(finite, (1.0, 99.5)) if finite.size else (0.0, 1.0)
    return float(low + high) / 2, max(float(high - low), 1e-6)


def render_slice(
    volume: Volume, heatmap: Heatmap | None, index: int, *, overlay: bool, window: Window | None = None
) -> Image.Image:
    """Return slice ``index`` as an RGB picture of the source's rows and columns, without any text.

    Parameters
    ----------
    heatmap
        On the volume's grid; None, or ``overlay`` false, gives plain anatomy.
    window
        (centre, width) in the volume's units; default :func:`window_of`.
    """
    grey = _windowed(volume.voxels[index], window or window_of(volume))
    if not overlay or heatmap is None:
        return Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
    return Image.fromarray(_blend(grey, heatmap.values[index]))


def png(image: Image.Image) -> bytes:
    """Return a picture as PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _windowed(values: npt.NDArray[np.float32], window: Window) -> npt.NDArray[np.uint8]:
    centre, width = window
    unit = np.clip((np.nan_to_num(values) - (centre - width / 2)) / width, 0, 1)
    return np.asarray(unit * 255 + 0.5, dtype=np.uint8)


def _blend(grey: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Colour what is warmer than the floor; opacity rises from there, so that cold tissue stays untouched."""
    opacity = HEAT_OPACITY * np.clip((heat - HEAT_FLOOR) / (0.6 - HEAT_FLOOR), 0, 1)[..., None]
    colour = np.stack([np.interp(heat, _STOPS, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    return np.asarray(grey[..., None] * (1 - opacity) + colour * opacity + 0.5, dtype=np.uint8)
