"""Synthetic heads: one random, labelled head per seed, for the CT and the MR cohort alike.

``draw_head`` warps the template of :mod:`inference.training.head_template` by a random affine map and two scales of
smooth random displacement, ages it (ventricles, sulci, skull, scalp), and samples it straight on the scanner's grid.
A head carries tissue labels, partial-volume fractions, and signed distances in which lesions are placed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from inference.training.head_template import FIELDS, LOWER_RAS_MM, SHAPE_ZYX, SPACING_MM, load_template

Array = npt.NDArray[np.float32]

CHOROID_RAS_MM = ((-23.0, -42.0, 8.0), (23.0, -42.0, 8.0))
PINEAL_RAS_MM = (0.0, -30.0, 0.0)


class Tissue(IntEnum):
    """Values of :attr:`Head.labels`."""

    AIR = 0
    SOFT_TISSUE = 1
    MUSCLE = 2
    FAT = 3
    BONE = 4
    DIPLOE = 5
    AIR_SPACE = 6
    CSF = 7
    VENTRICLE = 8
    GREY = 9
    WHITE = 10
    DEEP_GREY = 11
    DURA = 12
    VENOUS_SINUS = 13
    GLOBE = 14
    CEREBELLUM = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What was drawn for a head; lengths in mm, angles in degrees (turn about x, y, z), atrophy 0..1."""

    age_years: float
    atrophy: float
    scale_xyz: tuple[float, float, float]
    angles_deg: tuple[float, float, float]
    skull_mm: float
    diploe: float
    scalp_mm: float
    ventricle_growth_mm: float
    sulcus_gap_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One synthetic head on a scanner grid.

    Attributes
    ----------
    labels
        :class:`Tissue` values ``[z, y, x]`` int16.
    grey, white, csf
        Fractions 0..1 inside the cranial cavity (they sum to 1 there), 0 outside. ``csf`` includes the ventricles.
    distance_mm
        Signed distances by field name without ``_mm`` (``cavity``, ``ventricle``, ``bone``, ``air``, ``skin``,
        ``orbit``, ``globe``, ``falx``, ``tentorium``, ``venous``, ``deep_grey``, ``posterior_fossa``), negative inside.
    ras_mm
        Template (MNI, RAS) coordinates ``[3, z, y, x]`` of every voxel: where in the head it lies.
    texture, fine_texture
        Smooth unit-variance noise ``[z, y, x]`` (about 30 and 8 mm) for whoever needs a natural irregularity.
    affine_lps_mm
        4x4, ``(z, y, x, 1)`` to LPS mm, as :class:`inference.volume.Geometry` has it.
    """

    labels: npt.NDArray[np.int16]
    grey: Array
    white: Array
    csf: Array
    distance_mm: dict[str, Array]
    ras_mm: Array
    texture: Array
    fine_texture: Array
    affine_lps_mm: npt.NDArray[np.float64]
    traits: Traits

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres."""
        step = np.linalg.norm(self.affine_lps_mm[:3, :3], axis=0)
        return float(step[0]), float(step[1]), float(step[2])

    @property
    def intracranial(self) -> npt.NDArray[np.bool_]:
        """Voxels inside the cranial cavity (the spinal canal below the foramen magnum left out)."""
        return np.asarray((self.distance_mm["cavity"] < 0) & (self.ras_mm[2] > -68.0))


def sigmoid(x: npt.NDArray[np.floating[Any]]) -> Array:
    """Logistic function, safe for large magnitudes."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), np.float32)


def smooth_noise(
    rng: np.random.Generator, shape_zyx: tuple[int, int, int], spacing_zyx_mm: tuple[float, ...], scale_mm: float
) -> Array:
    """Unit-variance smooth noise ``[z, y, x]``: white noise on a grid of ``scale_mm``, interpolated."""
    coarse = [max(3, int(np.ceil(n * s / scale_mm)) + 3) for n, s in zip(shape_zyx, spacing_zyx_mm, strict=True)]
    draw = torch.from_numpy(rng.standard_normal(coarse, dtype=np.float32))[None, None]
    smooth = functional.avg_pool3d(functional.pad(draw, (1, 1, 1, 1, 1, 1), mode="replicate"), 2, 1)
    fine = functional.interpolate(smooth, size=shape_zyx, mode="trilinear", align_corners=True)[0, 0].numpy()
    return np.asarray(fine / max(float(fine.std()), 1e-6), np.float32)


def draw_traits(rng: np.random.Generator) -> Traits:
    """Draw age, size, tilt and shape; about one head in twelve is small with a thin skull, like an adolescent's."""
    age = float(np.clip(rng.normal(58, 22), 18, 96))
    small = rng.random() < 0.08
    atrophy = float(np.clip((age - 25) / 70 + rng.normal(0, 0.22), 0, 1)) * (0.0 if small else 1.0)
    size = float(rng.normal(0.93, 0.04)) * (0.92 if small else 1.0)
    scale = tuple(float(size * rng.normal(1, 0.03)) for _ in range(3))
    return Traits(
        age_years=age,
        atrophy=atrophy,
        scale_xyz=(scale[0], scale[1], scale[2]),
        angles_deg=(float(np.clip(rng.normal(-2, 8), -18, 18)), float(rng.normal(0, 4)), float(rng.normal(0, 6))),
        skull_mm=float(rng.uniform(2.5, 4.5) if small else np.clip(rng.normal(6.5, 2.0), 3.2, 13)),
        diploe=float(rng.uniform(0, 1)),
        scalp_mm=float(np.clip(rng.normal(5.5, 2.0), 2.0, 12)),
        ventricle_growth_mm=float(rng.normal(-0.3, 0.9) + 4.0 * atrophy**1.4),
        sulcus_gap_mm=float(np.clip(0.4 + rng.normal(0.3, 0.5) + 3.0 * atrophy**1.3, 0.0, 5.0)),
    )


def _rotation(angles_deg: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _template_coordinates(
    rng: np.random.Generator, affine_lps_mm: npt.NDArray[np.float64], shape: tuple[int, int, int], traits: Traits
) -> Array:
    """MNI coordinates ``[3, z, y, x]`` of every scanner voxel: affine part plus two scales of displacement."""
    to_ras = np.diag([-1.0, -1.0, 1.0]) @ affine_lps_mm[:3]
    centre = np.array([0.0, -18.0, 5.0])
    inverse = np.diag(1.0 / np.array(traits.scale_xyz)) @ _rotation(traits.angles_deg).T
    matrix = inverse @ to_ras[:, :3]
    offset = inverse @ (to_ras[:, 3] - centre) + centre
    index = [np.arange(n, dtype=np.float32) for n in shape]
    spacing = tuple(float(v) for v in np.linalg.norm(affine_lps_mm[:3, :3], axis=0))
    amplitudes = (rng.uniform(1.5, 4.0), rng.uniform(0.3, 1.0))
    coordinates = np.empty((3, *shape), np.float32)
    for axis in range(3):
        coordinates[axis] = (
            np.float32(offset[axis])
            + np.float32(matrix[axis, 0]) * index[0][:, None, None]
            + np.float32(matrix[axis, 1]) * index[1][None, :, None]
            + np.float32(matrix[axis, 2]) * index[2][None, None, :]
        )
        for amplitude, scale_mm in zip(amplitudes, (55.0, 18.0), strict=True):
            coordinates[axis] += np.float32(amplitude) * smooth_noise(rng, shape, spacing, scale_mm)
    return coordinates


def sample_fields(ras_mm: Array, names: tuple[str, ...] = FIELDS) -> dict[str, Array]:
    """Trilinear sample of template fields at ``ras_mm``; outside the template its edge value counts."""
    size = np.array(SHAPE_ZYX[::-1], np.float32)
    grid = np.empty((*ras_mm.shape[1:], 3), np.float32)
    for axis in range(3):
        grid[..., axis] = (ras_mm[axis] - LOWER_RAS_MM[axis]) * (2.0 / (SPACING_MM * (size[axis] - 1))) - 1.0
    fields = load_template().fields[[FIELDS.index(name) for name in names]]
    template = torch.from_numpy(fields)[None]
    sampled = functional.grid_sample(
        template, torch.from_numpy(grid)[None], mode="bilinear", padding_mode="border", align_corners=True
    )[0].numpy()
    return dict(zip(names, sampled, strict=True))


def brain_tissue(fields: dict[str, Array], traits: Traits, texture: Array) -> tuple[Array, Array, Array]:
    """Grey, white and CSF inside the cavity: sulci sharpened and individual, widened by age; ventricles grown."""
    cavity = fields["cavity_mm"]
    inside = sigmoid(-cavity / 0.35)
    cerebellum = sigmoid(-fields["posterior_fossa_mm"] / 1.5)
    csf = np.clip(1.0 - fields["grey"] - fields["white"], 0.0, 1.0)
    widening = (0.02 + 0.30 * traits.atrophy) * (1.0 - 0.6 * cerebellum)
    sulci = sigmoid((csf + 0.10 * texture * np.float32(0.5 + traits.atrophy) + widening - 0.62) / 0.09)
    gap = traits.sulcus_gap_mm * (1.0 + 0.35 * texture) * (1.0 - 0.5 * cerebellum)
    sulci = np.maximum(sulci, sigmoid((cavity + gap) / 0.5))
    ventricle = sigmoid((traits.ventricle_growth_mm - fields["ventricle_mm"]) / 0.5)
    fluid = np.maximum(sulci, ventricle) * inside
    white = sigmoid(
        (fields["white"] / np.maximum(fields["white"] + fields["grey"], 0.05) - 0.5 + 0.05 * texture) / 0.12
    )
    parenchyma = inside - fluid
    return (1.0 - white) * parenchyma, white * parenchyma, fluid


def _label(
    fields: dict[str, Array], fractions: tuple[Array, Array, Array], traits: Traits, texture: Array
) -> npt.NDArray[np.int16]:
    grey, white, csf = fractions
    cavity, skin = fields["cavity_mm"], fields["skin_mm"]
    thickness = vault_thickness_mm(traits, texture)
    labels = np.zeros(cavity.shape, np.int16)
    labels[skin < 0] = Tissue.SOFT_TISSUE
    labels[skin < -6.0] = Tissue.MUSCLE
    labels[(skin < -2.0) & (skin > -2.0 - traits.scalp_mm * 0.6)] = Tissue.FAT
    labels[(fields["orbit_mm"] < 0) & (skin < -1)] = Tissue.FAT
    labels[fields["globe_mm"] < 0] = Tissue.GLOBE
    vault = (cavity >= 0) & (cavity < thickness) & (skin < -1.0)
    labels[vault | ((fields["bone_mm"] < 0) & (cavity >= 0) & (skin < -1.0))] = Tissue.BONE
    marrow = vault & (cavity > 0.3 * thickness) & (cavity < 0.72 * thickness) & (fields["bone_mm"] > 0)
    if traits.diploe > 0.25:
        labels[marrow & (thickness > 4.0)] = Tissue.DIPLOE
    labels[(fields["air_mm"] < 0) & (cavity > 1.2) & (skin < 0)] = Tissue.AIR_SPACE
    inside = cavity < 0
    brain = np.where(white > grey, Tissue.WHITE, Tissue.GREY).astype(np.int16)
    brain[(brain == Tissue.GREY) & (fields["deep_grey_mm"] < 0)] = Tissue.DEEP_GREY
    brain[(fields["posterior_fossa_mm"] < 0) & (brain == Tissue.GREY)] = Tissue.CEREBELLUM
    brain[csf > 0.5] = Tissue.CSF
    brain[fields["ventricle_mm"] < traits.ventricle_growth_mm] = Tissue.VENTRICLE
    brain[(np.minimum(fields["falx_mm"], fields["tentorium_mm"]) < 0.8) & (cavity > -60)] = Tissue.DURA
    brain[fields["venous_mm"] < 0] = Tissue.VENOUS_SINUS
    labels[inside] = brain[inside]
    return labels


def vault_thickness_mm(traits: Traits, texture: Array) -> Array:
    """Thickness of the skull over the cavity, which varies smoothly from place to place (``texture``: broad noise)."""
    return np.asarray(np.clip(traits.skull_mm * (1.0 + 0.16 * texture), 1.8, 16.0), np.float32)


def draw_head(
    rng: np.random.Generator,
    *,
    spacing_mm: tuple[float, float, float] = (2.5, 1.0, 1.0),
    size_mm: tuple[float, float] = (230.0, 200.0),
    coverage_mm: float | None = None,
    traits: Traits | None = None,
) -> Head:
    """Draw one head on an axial scanner grid.

    Parameters
    ----------
    rng
        Decides everything; the same generator state gives the same head.
    spacing_mm
        Voxel size z, y, x. Sample z finer than the slice thickness and average, to get partial volume.
    size_mm
        Field of view, rows and columns.
    coverage_mm
        Length scanned, from just above the vertex downwards; by default 140 to 175 mm (skull base to face or neck).
    traits
        Fixed traits, else drawn by :func:`draw_traits`.

    Returns
    -------
    Head
        Axes ``[z, y, x]``: z to the vertex, y to posterior, x to the patient's left.
    """
    traits = traits or draw_traits(rng)
    coverage = coverage_mm if coverage_mm is not None else float(rng.uniform(138, 172))
    shape = (round(coverage / spacing_mm[0]), round(size_mm[0] / spacing_mm[1]), round(size_mm[1] / spacing_mm[2]))
    top_mm = 98.0 * traits.scale_xyz[2] + float(rng.uniform(-4, 6))
    shift_y, shift_x = float(rng.normal(0, 5)) - 18.0, float(rng.normal(0, 5))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, spacing_mm[2]], [0, spacing_mm[1], 0], [spacing_mm[0], 0, 0]])
    affine[:3, 3] = (
        shift_x - 0.5 * spacing_mm[2] * (shape[2] - 1),
        shift_y + 36.0 - 0.5 * spacing_mm[1] * (shape[1] - 1),
        top_mm - spacing_mm[0] * (shape[0] - 1),
    )
    ras = _template_coordinates(rng, affine, shape, traits)
    fields = sample_fields(ras)
    texture = smooth_noise(rng, shape, spacing_mm, 8.0)
    broad = smooth_noise(rng, shape, spacing_mm, 30.0)
    # the template's skin follows the cavity at 11 mm; make room for this head's skull and scalp
    covered = fields["cavity_mm"] - vault_thickness_mm(traits, broad) - np.float32(traits.scalp_mm)
    covered = np.where(ras[2] > -30.0, covered, 50.0).astype(np.float32)
    fields["skin_mm"] = np.minimum(fields["skin_mm"] - np.float32(traits.skull_mm + traits.scalp_mm - 11.0), covered)
    grey, white, csf = brain_tissue(fields, traits, texture)
    labels = _label(fields, (grey, white, csf), traits, broad)
    distances = {name.removesuffix("_mm"): fields[name] for name in FIELDS if name.endswith("_mm")}
    return Head(
        labels=labels,
        grey=grey,
        white=white,
        csf=csf,
        distance_mm=distances,
        ras_mm=ras,
        texture=broad,
        fine_texture=texture,
        affine_lps_mm=affine,
        traits=traits,
    )
