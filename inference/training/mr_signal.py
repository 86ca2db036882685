"""From tissue fractions to the signal of a T2 scanner: contrast, shading, blur, motion, Rician noise.

Every quantity is drawn from a range wider than real scanners span, so that a real one is one more draw (domain
randomisation: Billot et al., SynthSeg, 2023). Signal is relative to white matter = 1 until the gain is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inference.training.anatomy import smooth_noise
from inference.training.mr_scene import TISSUES

Array = npt.NDArray[np.float32]
Range = tuple[float, float]
BRAIN, DEEP = slice(0, 3), 2  # white, grey, deep: the first of TISSUES
# (middle, radius) in mm along z (up), y (back), x (to the side) from the middle of the deep grey (MNI atlas)
CEREBELLUM: tuple[Range, Range, Range] = ((-30, 22), (60, 28), (0, 50))
NUCLEI: tuple[tuple[Range, Range, Range], ...] = (
    ((-4, 6), (2, 10), (18, 5)),  # pallidum
    ((2, 8), (-10, 9), (15, 4)),  # internal capsule, anterior limb
    ((-12, 4), (20, 4), (5, 4)),  # red nucleus
    ((-16, 5), (16, 4), (10, 6)),  # substantia nigra
    ((-38, 5), (58, 6), (14, 6)),  # dentate nucleus
)

CONTRAST: dict[str, Range] = {
    "white": (1.0, 1.0),
    "grey": (1.15, 1.6),
    "deep": (0.9, 1.3),
    "csf": (2.3, 4.2),
    "void": (0.05, 0.45),
    "bone": (0.02, 0.2),
    "soft": (0.3, 0.9),
    "fat": (0.6, 3.2),
    "marrow": (0.25, 0.9),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MrScanner:
    """Ranges that one scanner's protocol draws from.

    Lengths in mm; ``noise`` is the standard deviation relative to white matter, ``shading`` that of the log of the
    coil profile, ``blur_mm`` the standard deviation of the point spread in plane; ``iron`` and ``edge`` how dark and
    how sharp the nuclei are.
    """

    name: str
    manufacturer: str
    field_tesla: tuple[float, ...]
    thickness_mm: Range
    gap_mm: Range
    pixel_mm: Range
    contrast: Mapping[str, Range]
    shading: Range
    noise: Range
    blur_mm: Range
    motion_share: float
    iron: Range = (0.0, 0.9)
    edge: Range = (3.0, 6.0)


SCANNERS: Mapping[str, MrScanner] = {
    "A": MrScanner(
        name="A",
        manufacturer="SIEMENS",
        field_tesla=(1.5,),
        thickness_mm=(5.0, 5.0),
        gap_mm=(0.5, 1.5),
        pixel_mm=(0.7, 0.9),
        contrast=CONTRAST | {"csf": (2.4, 3.2), "grey": (1.25, 1.45), "fat": (0.9, 1.6)},
        shading=(0.05, 0.15),
        noise=(0.02, 0.06),
        blur_mm=(0.5, 0.8),
        motion_share=0.10,
    ),
    "B": MrScanner(
        name="B",
        manufacturer="GE MEDICAL SYSTEMS",
        field_tesla=(3.0,),
        thickness_mm=(3.5, 4.5),
        gap_mm=(0.0, 0.5),
        pixel_mm=(0.5, 0.6),
        contrast=CONTRAST | {"csf": (2.8, 4.2), "grey": (1.3, 1.6), "fat": (1.5, 3.0)},
        shading=(0.15, 0.35),
        noise=(0.01, 0.04),
        blur_mm=(0.35, 0.6),
        motion_share=0.15,
    ),
    "wide": MrScanner(
        name="wide",
        manufacturer="Philips Medical Systems",
        field_tesla=(0.5, 1.0, 1.5, 3.0),
        thickness_mm=(3.0, 6.0),
        gap_mm=(0.0, 1.5),
        pixel_mm=(0.45, 1.0),
        contrast=CONTRAST,
        shading=(0.03, 0.4),
        noise=(0.01, 0.10),
        blur_mm=(0.3, 1.1),
        motion_share=0.15,
    ),
}


def draw_contrast(rng: np.random.Generator, ranges: Mapping[str, Range]) -> Array:
    """Signal of each tissue of ``TISSUES`` relative to white matter."""
    return np.array([rng.uniform(*ranges[name]) for name in TISSUES], np.float32)


def slice_profile(length_mm: float, step_mm: float, thickness_mm: float, gap_mm: float, first_mm: float) -> Array:
    """Weights ``[slices, fine z]`` of excited slices with soft edges; rows sum to 1."""
    centre = np.arange(first_mm + thickness_mm / 2, length_mm - thickness_mm / 2, thickness_mm + gap_mm)
    z = np.arange(round(length_mm / step_mm)) * step_mm + step_mm / 2
    weights = 1.0 / (1.0 + np.exp((np.abs(z[None] - centre[:, None]) - thickness_mm / 2) / 0.4))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def render(
    rng: np.random.Generator,
    fractions: Array,
    spacing_zyx_mm: tuple[float, float, float],
    scanner: MrScanner,
    *,
    native_pixel_mm: float,
    at: Landmarks | None = None,
) -> Array:
    """Draw one acquisition of a scene.

    Parameters
    ----------
    fractions
        ``[tissue, z, y, x]`` on the slices, 0..1.
    native_pixel_mm
        Pixel of the acquisition. Where ``spacing_zyx_mm`` is coarser, averaging has taken away that much noise.
    at
        Landmarks of the whole scene when ``fractions`` are some slices of it only.

    Returns
    -------
    Array
        Signal ``[z, y, x]``, non-negative, white matter near 1.
    """
    shape = (fractions.shape[1], fractions.shape[2], fractions.shape[3])
    contrast = draw_contrast(rng, scanner.contrast)
    signal = np.tensordot(contrast, fractions, axes=1)
    signal *= uneven_brain(rng, fractions, spacing_zyx_mm, at or landmarks(fractions), scanner)
    signal *= 1.0 + float(rng.uniform(0.0, 0.05)) * smooth_noise(rng, shape, spacing_zyx_mm, 4.0)
    sigma_px = float(rng.uniform(*scanner.blur_mm)) / spacing_zyx_mm[1]
    signal = ndimage.gaussian_filter(signal, (0, sigma_px, sigma_px))
    if rng.random() < scanner.motion_share:
        signal = _ghosts(rng, signal)
    signal *= _shading(rng, shape, spacing_zyx_mm, float(rng.uniform(*scanner.shading)))
    noise = float(rng.uniform(*scanner.noise)) * min(1.0, native_pixel_mm / spacing_zyx_mm[1])
    real = signal + noise * rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(np.hypot(real, noise * rng.standard_normal(shape, dtype=np.float32)), np.float32)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Where a scene's brain lies on its grid: the middle column, and slice and row of the middle of the deep grey."""

    column: float
    slice_row: tuple[float, float] | None  # None: no deep grey in the field of view


def landmarks(fractions: Array | npt.NDArray[np.uint8]) -> Landmarks:
    """Of a whole scene ``[tissue, z, y, x]``, as shares or in 255ths; taken before slices are cut out of it."""
    brain = fractions[BRAIN].sum(axis=(0, 1, 2), dtype=np.float64)
    column = float(np.average(np.arange(len(brain)), weights=brain + 1e-6))
    deep = fractions[DEEP].sum(axis=2, dtype=np.float64)
    if deep.sum() < 1e-3 * brain.sum():
        return Landmarks(column, None)
    z, y = np.mgrid[: deep.shape[0], : deep.shape[1]]
    return Landmarks(column, (float(np.average(z, weights=deep)), float(np.average(y, weights=deep))))


def uneven_brain(
    rng: np.random.Generator,
    fractions: Array,
    spacing_zyx_mm: tuple[float, float, float],
    at: Landmarks,
    scanner: MrScanner,
) -> Array:
    """What is uneven in a healthy brain, alike on both sides: regions, patches, the cerebellum, nuclei with iron.

    Tissue maps know none of this, and a network that never saw it takes a real cerebellum for a lesion (ADR 0066).
    """
    shape, columns = (fractions.shape[1], fractions.shape[2], fractions.shape[3]), np.arange(fractions.shape[3])
    mirrored = np.clip(np.rint(2 * at.column - columns), 0, shape[2] - 1).astype(np.intp)
    field = np.zeros(shape, np.float32)
    for scale_mm, size in ((rng.uniform(20, 50), rng.uniform(0.0, 0.12)), (rng.uniform(6, 14), rng.uniform(0.0, 0.06))):
        field += np.float32(size) * smooth_noise(rng, shape, spacing_zyx_mm, float(scale_mm))
    field = 0.5 * (field + field[..., mirrored])
    if at.slice_row is not None:
        z_mm = (np.arange(shape[0]) - at.slice_row[0]) * spacing_zyx_mm[0]
        y_mm = (np.arange(shape[1]) - at.slice_row[1]) * spacing_zyx_mm[1]
        x_mm = np.abs(columns - at.column) * spacing_zyx_mm[2]
        folia = smooth_noise(rng, shape, spacing_zyx_mm, float(rng.uniform(4, 7))) * np.float32(rng.uniform(0, 0.12))
        shine = np.float32(rng.uniform(-0.05, 0.35)) + folia
        field += shine * _bump(rng, (z_mm, y_mm, x_mm), CEREBELLUM, scanner.edge)
        iron = rng.uniform(*scanner.iron)
        for nucleus in NUCLEI:
            field -= np.float32(iron * rng.uniform(0.3, 1.2)) * _bump(rng, (z_mm, y_mm, x_mm), nucleus, scanner.edge)
    return np.asarray(np.exp(field * fractions[BRAIN].sum(axis=0)), np.float32)


def _bump(
    rng: np.random.Generator, axes_mm: tuple[Array, Array, Array], place: tuple[Range, Range, Range], sharp: Range
) -> Array:
    """1 in the middle of an ellipsoid, falling off softly; ``place``: middle and radius along z, y, x, in mm."""
    size, edge = float(rng.uniform(0.85, 1.1)), np.float32(rng.uniform(*sharp))
    parts = [
        ((axis - size * middle - rng.normal(0, 1.5)) / (radius * rng.uniform(0.8, 1.3))) ** 2
        for axis, (middle, radius) in zip(axes_mm, place, strict=True)
    ]
    distance = parts[0][:, None, None] + parts[1][:, None] + parts[2]
    return np.asarray(1.0 / (1.0 + np.exp(np.minimum(edge * (distance - 1.0), 30.0))), np.float32)


def _shading(rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, ...], size: float) -> Array:
    """Receive coil: smooth noise, and a bright rim or a bright centre (as at 3 T)."""
    field = size * smooth_noise(rng, shape, spacing, 90.0)
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    radial = np.float32(rng.normal(0, size)) * np.asarray(x**2 + y**2 - 0.5, np.float32)
    return np.asarray(np.exp(field + radial[None]), np.float32)


def _ghosts(rng: np.random.Generator, signal: Array) -> Array:
    """Copies shifted along the phase-encoding axis, fading with distance, stronger in some slices."""
    axis = int(rng.integers(1, 3))
    shift = int(rng.integers(signal.shape[axis] // 8, signal.shape[axis] // 2))
    strength = float(rng.uniform(0.02, 0.12)) * rng.uniform(0, 1, (len(signal), 1, 1)).astype(np.float32)
    return np.asarray(
        (1 - strength) * signal + 0.5 * strength * (np.roll(signal, shift, axis) + np.roll(signal, -shift, axis)),
        np.float32,
    )
