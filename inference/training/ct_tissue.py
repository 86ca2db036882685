"""From tissue to Hounsfield units, and from Hounsfield units to the picture a scanner would make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.training.anatomy import Head, Tissue, sigmoid
from inference.training.canvas import blur_in_plane

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """Ranges a scanner's pictures are drawn from; lengths in mm, noise and cupping in HU at the nominal slice."""

    name: str
    thickness_mm: tuple[float, ...]
    noise_hu: tuple[float, float]
    psf_mm: tuple[float, float]
    grain_px: tuple[float, float]
    cupping_hu: tuple[float, float]
    shift_hu: tuple[float, float]
    clip_share: float


SCANNERS = {
    "A": Scanner(
        name="A",
        thickness_mm=(5.0, 5.0, 5.0, 4.5, 4.0),
        noise_hu=(1.5, 4.0),
        psf_mm=(0.45, 0.9),
        grain_px=(0.4, 0.85),
        cupping_hu=(0.0, 6.0),
        shift_hu=(-3.0, 3.0),
        clip_share=0.3,
    ),
    "B": Scanner(
        name="B",
        thickness_mm=(5.0, 5.0, 5.0, 4.0, 3.0),
        noise_hu=(2.0, 5.5),
        psf_mm=(0.6, 1.2),
        grain_px=(0.5, 1.1),
        cupping_hu=(1.0, 8.0),
        shift_hu=(-5.0, 5.0),
        clip_share=0.15,
    ),
}


def compose_hu(rng: np.random.Generator, head: Head) -> Array:
    """Density of every voxel of a healthy head, edges soft inside the cavity, before the scanner's blur."""
    white = float(rng.uniform(24, 32))
    grey = white + float(rng.uniform(4.5, 10.5))
    fluid = float(rng.uniform(1, 11))
    table = np.zeros(len(Tissue), np.float32)
    table[Tissue.AIR] = -1000
    table[Tissue.AIR_SPACE] = -1000
    table[Tissue.SOFT_TISSUE] = rng.uniform(30, 55)
    table[Tissue.MUSCLE] = rng.uniform(45, 65)
    table[Tissue.FAT] = rng.uniform(-110, -70)
    table[Tissue.BONE] = rng.uniform(800, 1500)
    table[Tissue.DIPLOE] = rng.uniform(250, 650)
    table[Tissue.GLOBE] = rng.uniform(2, 16)
    outside = table[head.labels]
    distance = head.distance_mm
    deep = sigmoid(-distance["deep_grey"] / 1.2)
    hindbrain = sigmoid(-distance["posterior_fossa"] / 1.5)
    level = grey + deep * float(rng.uniform(-1, 3)) + hindbrain * float(rng.uniform(-2, 2))
    brain = head.grey * level + head.white * white + head.csf * fluid
    brain = brain + 0.8 * head.fine_texture * (head.grey + head.white)
    sheet = np.minimum(distance["falx"], distance["tentorium"])
    half_mm = float(rng.uniform(0.3, 1.0))
    dura = sigmoid((half_mm - sheet) / 0.4) * float(rng.uniform(0.5, 1.0))
    brain = brain + dura * (float(rng.uniform(42, 58)) - brain)
    venous = sigmoid(-distance["venous"] / 0.5)
    brain = brain + venous * (float(rng.uniform(42, 62)) - brain)
    inside = sigmoid(-distance["cavity"] / 0.25)
    lamina = np.where(head.labels >= Tissue.CSF, table[Tissue.BONE], outside)
    lamina = np.where(head.labels == Tissue.GLOBE, outside, lamina)
    return np.asarray(inside * brain + (1.0 - inside) * lamina, np.float32)


def beam_hardening(rng: np.random.Generator, head: Head, hu: Array, scanner: Scanner) -> None:
    """Cupping under the vault and dark bands between the petrous bones, added in place inside the cavity."""
    inside = sigmoid(-head.distance_mm["cavity"] / 0.5)
    cup = float(rng.uniform(*scanner.cupping_hu))
    hu += inside * cup * np.exp(np.minimum(head.distance_mm["cavity"], 0.0) / float(rng.uniform(5, 16)))
    band = float(rng.uniform(0, 12))
    x, y, z = head.ras_mm
    across = np.exp(-(((z + 40) / 9) ** 2) - ((y + 30 + 6 * np.sin(x / 7)) / 7) ** 2)
    hu -= inside * band * across
    hu += inside * float(rng.uniform(0, 2.0)) * head.texture
    # where the skull is all around within the slice's thickness, the whole slice reads too dense
    hu += inside * float(rng.uniform(0, 9)) * sigmoid((z - 60) / 6)
    hu += inside * float(rng.uniform(-2, 6)) * sigmoid((-46 - z) / 5)


def acquire(
    rng: np.random.Generator, fine_hu: Array, marks: Array, *, per_slice: int, spacing_mm: float, scanner: Scanner
) -> tuple[Array, Array]:
    """Blur, average to slices, and add correlated noise, streaks and, rarely, motion.

    Parameters
    ----------
    fine_hu, marks
        ``[z, y, x]`` and, to be averaged alike, ``[n, z, y, x]`` on the fine grid; the last mark is blurred too.
    per_slice
        Fine slices averaged into one.
    spacing_mm
        Pixel spacing in plane.

    Returns
    -------
    tuple
        HU ``[slice, y, x]`` and marks ``[n, slice, y, x]``.
    """
    count = fine_hu.shape[0] // per_slice
    slices = fine_hu[: count * per_slice].reshape(count, per_slice, *fine_hu.shape[1:]).mean(axis=1)
    marks = marks[:, : count * per_slice].reshape(len(marks), count, per_slice, *marks.shape[2:]).mean(axis=2)
    sigma_px = float(rng.uniform(*scanner.psf_mm)) / spacing_mm
    slices = blur_in_plane(slices, sigma_px)
    marks[-1] = blur_in_plane(marks[-1], sigma_px)
    noise = rng.standard_normal(slices.shape, dtype=np.float32)
    grain = float(rng.uniform(*scanner.grain_px))
    noise = blur_in_plane(noise, grain)
    noise *= float(rng.uniform(*scanner.noise_hu)) / max(float(noise[0].std()), 1e-6)
    slices = slices + noise
    if rng.random() < 0.15:
        _streaks(rng, slices)
    if rng.random() < 0.06:
        _motion(rng, slices)
    slices = slices + float(rng.uniform(*scanner.shift_hu)) * (slices > -200)
    return np.asarray(slices, np.float32), np.asarray(marks, np.float32)


def _streaks(rng: np.random.Generator, slices: Array) -> None:
    """Straight bright and dark rays from a dense point, over a few low slices."""
    count, rows, columns = slices.shape
    first = int(rng.integers(0, max(1, count // 2)))
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    cy, cx = rows * float(rng.uniform(0.1, 0.6)), columns * float(rng.uniform(0.3, 0.7))
    angle = np.arctan2(y - cy, x - cx)
    rays = sum(np.sin(angle * int(rng.integers(5, 40)) + rng.uniform(0, 6.3)) for _ in range(4))
    fade = 30.0 / (30.0 + np.hypot(y - cy, x - cx))
    for z in range(first, min(count, first + int(rng.integers(1, 4)))):
        slices[z] += float(rng.uniform(4, 22)) * rays * fade * (slices[z] > -300)


def _motion(rng: np.random.Generator, slices: Array) -> None:
    """Blend some slices with a shifted copy of themselves."""
    for z in rng.choice(len(slices), size=min(len(slices), int(rng.integers(1, 5))), replace=False):
        shift = tuple(int(v) for v in rng.integers(-4, 5, 2))
        slices[z] = 0.6 * slices[z] + 0.4 * np.roll(slices[z], shift, axis=(0, 1))


def add_table(rng: np.random.Generator, slices: Array, spacing_mm: float) -> None:
    """A head holder: an arc of moderate density behind the head, open in front."""
    if rng.random() < 0.15:
        return
    rows, columns = slices.shape[1:]
    head_rows = np.flatnonzero((slices > -300).any(axis=(0, 2)))
    back = (int(head_rows.max()) if len(head_rows) else rows - 30) + int(rng.integers(3, 16)) / spacing_mm
    radius = float(rng.uniform(95, 150)) / spacing_mm
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    arc = np.abs(np.hypot(y - (back - radius), x - columns / 2) - radius) * spacing_mm < float(rng.uniform(1, 3.5))
    arc &= y > back - radius * float(rng.uniform(0.1, 0.7))
    slices[:, arc] = np.maximum(slices[:, arc], np.float32(rng.uniform(-400, 250)))


def clip_like_export(hu: Array) -> Array:
    """What an 8-bit W120/L40 export leaves of HU: steps of 0.47 between -20 and 100, bone 1000, the rest -1000."""
    level = np.round((np.clip(hu, -20, 100) + 20) * (255 / 120))
    back = level * (120 / 255) - 20
    return np.asarray(np.where(level >= 255, 1000.0, np.where(level <= 0, -1000.0, back)), np.float32)
