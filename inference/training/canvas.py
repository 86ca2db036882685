"""A head while it is being painted: Hounsfield units, blood by kind, and the bookkeeping of what was put in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from inference.labels import HAEMORRHAGE_KINDS
from inference.training.anatomy import Head, brain_tissue, sample_fields, smooth_noise
from inference.training.head_shapes import Point

Array = npt.NDArray[np.float32]
Window = tuple[slice, slice, slice]


@dataclass(slots=True)
class Canvas:
    """Mutable state of one CT head under construction, on the fine grid of ``head``.

    ``hu`` is ``[z, y, x]``; ``blood`` holds one 0..1 fraction per kind ``[5, z, y, x]``; ``facts`` what was drawn.
    """

    head: Head
    hu: Array
    blood: Array
    facts: dict[str, object] = field(default_factory=dict)

    def window(self, centre_ras: Point, reach_mm: float) -> Window:
        """The block of voxels within ``reach_mm`` of a template position (warping included, by nearest voxel)."""
        z, y, x = nearest_voxel(self.head, centre_ras)
        shape, spacing = self.hu.shape, self.head.spacing_zyx_mm
        bounds = []
        for index, size, step in zip((z, y, x), shape, spacing, strict=True):
            reach = int(np.ceil(reach_mm / step)) + 1
            bounds.append(slice(max(0, index - reach), min(size, index + reach + 1)))
        return bounds[0], bounds[1], bounds[2]

    def ras(self, window: Window) -> tuple[Array, Array, Array]:
        """Template coordinates inside ``window``."""
        x, y, z = self.head.ras_mm[(slice(None), *window)]
        return x, y, z

    def noise(self, rng: np.random.Generator, window: Window, scale_mm: float) -> Array:
        """Smooth unit noise inside ``window``."""
        shape = self.hu[window].shape
        return smooth_noise(rng, (shape[0], shape[1], shape[2]), self.head.spacing_zyx_mm, scale_mm)

    def paint(self, window: Window, fraction: Array, value_hu: Array | float) -> None:
        """Blend ``value_hu`` in by ``fraction`` (0..1)."""
        target = self.hu[window]
        target += fraction * (np.asarray(value_hu, np.float32) - target)

    def bleed(self, kind: str, window: Window, fraction: Array, value_hu: Array | float) -> None:
        """Paint blood and record it for the truth."""
        self.paint(window, fraction, value_hu)
        mark = self.blood[(HAEMORRHAGE_KINDS.index(kind), *window)]
        np.maximum(mark, fraction, out=mark)


def nearest_voxel(head: Head, centre_ras: Point) -> tuple[int, int, int]:
    """Index of the voxel whose template position is nearest (searched on every 2nd slice and 4th row and column)."""
    coarse = head.ras_mm[:, ::2, ::4, ::4]
    distance = sum((coarse[a] - np.float32(centre_ras[a])) ** 2 for a in range(3))
    z, y, x = np.unravel_index(int(np.argmin(distance)), coarse.shape[1:])
    return int(z) * 2, int(y) * 4, int(x) * 4


def push_brain(head: Head, centre_ras: Point, push_mm: float, reach_mm: float) -> Head:
    """Displace brain tissue away from a lesion; the skull and its contents' rim stay (mass effect, midline shift).

    Parameters
    ----------
    centre_ras
        Where the mass sits, in template coordinates.
    push_mm
        Largest displacement.
    reach_mm
        Distance over which the push fades (1/e).
    """
    away = head.ras_mm - np.array(centre_ras, np.float32)[:, None, None, None]
    radius = np.sqrt((away**2).sum(axis=0))
    rim = np.clip(-head.distance_mm["cavity"] / 12.0, 0.0, 1.0)
    fade = np.exp(-((radius / reach_mm) ** 2)) * np.clip(radius / 8.0, 0, 1)
    moved = head.ras_mm - away * (push_mm * rim * fade / np.maximum(radius, 1.0))
    names = ("grey", "white", "ventricle_mm", "falx_mm", "deep_grey_mm")
    fields = sample_fields(moved, names)
    fields["cavity_mm"] = head.distance_mm["cavity"]
    fields["posterior_fossa_mm"] = head.distance_mm["posterior_fossa"]
    grey, white, csf = brain_tissue(fields, head.traits, head.fine_texture)
    distances = head.distance_mm | {n.removesuffix("_mm"): fields[n] for n in names if n.endswith("_mm")}
    return replace(head, grey=grey, white=white, csf=csf, distance_mm=distances)


def blur_in_plane(volume: Array, sigma_px: float) -> Array:
    """Gaussian blur of every slice of ``[z, y, x]``."""
    radius = max(1, int(np.ceil(3 * sigma_px)))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float32) / sigma_px) ** 2)
    taps = taps / taps.sum()
    image = torch.from_numpy(np.ascontiguousarray(volume))[:, None]
    image = functional.pad(image, (radius, radius, radius, radius), mode="replicate")
    image = functional.conv2d(image, taps.view(1, 1, -1, 1))
    return np.asarray(functional.conv2d(image, taps.view(1, 1, 1, -1))[:, 0].numpy(), np.float32)
