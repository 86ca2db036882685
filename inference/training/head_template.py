"""The average head every synthetic head is warped from: smooth fields on a 2 mm grid in MNI152 space.

Brain tissue comes from the ICBM152 2009a maps that nilearn ships as files (read from disk; nothing is downloaded).
Everything around the brain is built from signed distances of simple shapes at anatomical MNI positions: the skull
from the distance to the cranial cavity, the rest (skull base, sinuses, orbits, face, neck) from ellipsoids and
capsules. Fields are smooth, so that a warped head can be sampled at any resolution and thresholded afterwards.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inference.training.head_shapes import capsules, ellipsoids, smooth_union

Array = npt.NDArray[np.float32]

SPACING_MM = 2.0
LOWER_RAS_MM = (-96.0, -132.0, -152.0)
SHAPE_ZYX = (129, 125, 97)
FIELDS = (
    "grey",
    "white",
    "cavity_mm",
    "ventricle_mm",
    "bone_mm",
    "air_mm",
    "skin_mm",
    "orbit_mm",
    "globe_mm",
    "falx_mm",
    "tentorium_mm",
    "venous_mm",
    "deep_grey_mm",
    "posterior_fossa_mm",
)


@dataclass(frozen=True, slots=True)
class Template:
    """Fields ``[channel, z, y, x]`` float32 in the order of :data:`FIELDS`; axes ascend in MNI RAS millimetres.

    Names ending in ``_mm`` are signed distances, negative inside.
    """

    fields: Array

    def __getitem__(self, name: str) -> Array:
        return np.asarray(self.fields[FIELDS.index(name)])


def _map(kind: str) -> tuple[Array, npt.NDArray[np.float64]]:
    """Read one of the maps nilearn ships (``gm``, ``wm``, ``t1``) as 0..1, with its affine; nilearn is not imported."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("nilearn is not installed; its packaged MNI152 maps are needed: pip install nilearn")
    path = Path(spec.origin).parent / "datasets" / "data" / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    image = nibabel.Nifti1Image.from_filename(path)
    return np.asarray(image.dataobj, np.float32) / 255.0, np.asarray(image.affine)


def _on_grid(data: Array, affine: npt.NDArray[np.float64]) -> Array:
    """Average 1 mm map ``[x, y, z]`` to the 2 mm template grid ``[z, y, x]``."""
    smooth = ndimage.uniform_filter(data, 2, mode="constant").transpose(2, 1, 0)
    start = (np.array(LOWER_RAS_MM) - affine[:3, 3])[::-1] + 0.5
    index = np.meshgrid(
        *[start[a] + SPACING_MM * np.arange(SHAPE_ZYX[a]) for a in range(3)], indexing="ij", sparse=False
    )
    return np.asarray(ndimage.map_coordinates(smooth, np.stack(index), order=1, mode="constant"), np.float32)


def signed_distance_mm(mask: npt.NDArray[np.bool_], spacing_mm: float | tuple[float, ...] = SPACING_MM) -> Array:
    """Distance to the surface of ``mask`` in mm, negative inside, zero half-way between the voxel centres."""
    step = float(np.min(spacing_mm))
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    return np.asarray(np.where(mask, step / 2 - inside, outside - step / 2), np.float32)


def ras_grid_mm() -> tuple[Array, Array, Array]:
    """MNI coordinates ``x, y, z`` (RAS, mm) of the template grid, broadcastable to ``[z, y, x]``."""
    z, y, x = (LOWER_RAS_MM[2 - a] + SPACING_MM * np.arange(SHAPE_ZYX[a], dtype=np.float32) for a in range(3))
    return x[None, None, :], y[None, :, None], z[:, None, None]


def _cavity(brain: npt.NDArray[np.bool_]) -> Array:
    """Signed distance to the cranial cavity: the brain, sulci and cisterns closed, petrous bone and sella cut out."""
    x, y, z = ras_grid_mm()
    hull = signed_distance_mm(brain)
    closed = signed_distance_mm(hull < 9.0) + 9.0 - 1.5  # closing by 9 mm, then 1.5 mm of subarachnoid space
    canal = capsules(x, y, z, [((0, -44, -58), (0, -46, -152), 7.0)])
    foramen = capsules(x, y, z, [((0, -42, -45), (0, -44, -72), 14.0)])
    cavity = np.minimum(np.minimum(closed, canal), foramen)
    petrous = capsules(
        x,
        y,
        z,
        [((s * 14, -19, -40), (s * 56, -38, -38), 5.0) for s in (-1, 1)],
    )
    clivus = capsules(x, y, z, [((0, -9, -36), (0, -27, -66), 5.0), ((-7, -8, -33), (7, -8, -33), 2.6)])
    clinoid = capsules(x, y, z, [((s * 12, 4, -27), (s * 26, 14, -27), 2.6) for s in (-1, 1)])
    cut = np.maximum(cavity, -np.minimum(np.minimum(petrous, clivus), clinoid))
    return np.asarray(ndimage.gaussian_filter(cut, 0.6), np.float32)  # takes the steps of the 2 mm grid off


def _ventricles(csf: Array) -> Array:
    """Signed distance to lateral, third and fourth ventricle, cut out of the CSF map by position."""
    x, y, z = ras_grid_mm()
    lateral = (np.abs(x) < 42) & (z > -22) & (z < 34) & (y > -78) & (y < 38) & ~((np.abs(x) < 3.5) & (y < -42))
    third = (np.abs(x) < 5) & (z > -14) & (z < 8) & (y > -32) & (y < 8)
    fourth = (np.abs(x) < 14) & (z > -48) & (z < -22) & (y > -56) & (y < -36)
    ambient = (y < -26) & (z < 4) & (np.abs(x) < 24) & (z > -22)  # ambient and quadrigeminal cisterns are not ventricle
    found = (csf > 0.5) & ((lateral & ~ambient & (z > -4)) | third | fourth)
    labels, n = ndimage.label(found)
    size = ndimage.sum_labels(found, labels, np.arange(1, n + 1))
    large = np.isin(labels, 1 + np.flatnonzero(size >= 12))
    horn = ellipsoids(x, y, z, [((s * 34, -28, -12), (2.6, 12, 3.0)) for s in (-1, 1)])  # temporal horns, slit-like
    return np.asarray(np.minimum(ndimage.gaussian_filter(signed_distance_mm(large), 0.5), horn), np.float32)


def _bone_and_air() -> tuple[Array, Array]:
    """Signed distances to the bones that are no part of the vault, and to the air spaces (both overlap; air wins)."""
    x, y, z = ras_grid_mm()
    sides = (-1, 1)
    bone = capsules(
        x,
        y,
        z,
        [((s * 12, -18, -42), (s * 60, -40, -40), 9.0) for s in sides]  # petrous pyramids
        + [((s * 60, -42, -44), (s * 58, -46, -68), 9.0) for s in sides]  # mastoids
        + [((0, 12, -44), (0, -30, -70), 8.0)]  # sphenoid body and clivus
        + [((-7, -8, -33), (7, -8, -33), 2.6)]  # dorsum sellae
        + [((s * 12, 4, -27), (s * 40, 20, -30), 2.4) for s in sides]  # lesser wings, anterior clinoids
        + [((s * 52, 38, -38), (s * 42, 66, -44), 4.0) for s in sides]  # lateral orbital wall
        + [((s * 40, 68, -56), (s * 66, 20, -52), 3.5) for s in sides]  # zygoma and arch
        + [((s * 12, 72, -20), (s * 44, 64, -22), 4.5) for s in sides]  # supraorbital rim
        + [((s * 56, -4, -58), (s * 50, 6, -106), 4.5) for s in sides]  # mandible, ramus
        + [((s * 50, 6, -106), (s * 10, 66, -118), 6.0) for s in sides]  # mandible, body
        + [((s * 26, 40, -86), (s * 8, 68, -90), 6.5) for s in sides]  # upper alveolar arch
        + [((0, 24, -42), (0, 70, -44), 2.0), ((0, 78, -34), (0, 84, -44), 4.0)]  # nasal septum, nasal bone
        + [((0, -28, -92), (0, -30, -152), 11.0)]  # vertebral bodies
        + [((s * 22, -40, -84), (s * 22, -42, -150), 8.0) for s in sides]  # lateral masses
        + [((s * 16, -58, -84), (0, -72, -90), 5.0) for s in sides],  # posterior arches
    )
    maxilla = ellipsoids(x, y, z, [((s * 30, 46, -62), (20, 24, 22)) for s in sides])
    bone = np.minimum(bone, np.abs(maxilla) - 1.2)  # thin-walled box around the sinus
    canal = capsules(x, y, z, [((0, -44, -50), (0, -46, -152), 9.5)])
    bone = np.maximum(bone, -canal)
    air = ellipsoids(
        x,
        y,
        z,
        [((s * 30, 46, -62), (16, 20, 18)) for s in sides]  # maxillary sinuses
        + [((0, 20, -44), (11, 10, 8)), ((0, 50, -36), (8, 24, 10))]  # sphenoid, ethmoid
        + [((s * 8, 44, -62), (4.5, 30, 18)) for s in sides]  # nasal cavity
        + [((0, 2, -86), (10, 9, 28)), ((0, 40, -100), (14, 18, 5))]  # pharynx, mouth
        + [((s * 58, -44, -48), (8, 9, 14)) for s in sides]  # mastoid cells
        + [((s * 66, -24, -46), (12, 3.5, 3.5)) for s in sides]  # ear canals
        + [((s * 9, 76, -16), (9, 4, 10)) for s in sides],  # frontal sinuses
    )
    return bone, air


def _skin(cavity_mm: Array) -> Array:
    x, y, z = ras_grid_mm()
    vault = np.where(z > -60, cavity_mm, cavity_mm + 40.0).astype(np.float32)
    vault = ndimage.gaussian_filter(np.minimum(vault, 60.0), 2.0) - 11.0
    face = ellipsoids(x, y, z, [((0, 24, -62), (70, 66, 82)), ((0, 88, -52), (14, 14, 22))])
    neck = capsules(x, y, z, [((0, -30, -80), (0, -34, -170), 58.0)])
    ears = ellipsoids(x, y, z, [((s * 82, -28, -44), (5, 12, 26)) for s in (-1, 1)])
    return np.asarray(np.minimum(smooth_union(smooth_union(vault, face, 12.0), neck, 14.0), ears), np.float32)


def _partitions() -> tuple[Array, Array, Array, Array]:
    """Distance to the falx and the tentorium (sheets), to the venous sinuses (tubes), and to the posterior fossa."""
    x, y, z = ras_grid_mm()
    tent_height = -8.0 - 0.32 * np.abs(x) - 0.28 * (-(y + 42.0))  # a tent: high in the midline and in front
    tent_height = np.maximum(tent_height, -34.0 + 0.0 * x)
    notch = np.hypot(np.abs(x) / 22.0, (y + 22.0) / 30.0) > 1.0
    tentorium = np.where((y < -22) & notch, np.abs(z - tent_height) * 0.93, 40.0)
    lower_edge = 6.0 + 26.0 * np.clip(1.0 - ((y + 8.0) / 72.0) ** 2, 0.0, 1.0)
    lower_edge = np.where(y < -50, np.maximum(tent_height, -8.0), lower_edge)
    falx = np.hypot(x, np.maximum(lower_edge - z, 0.0)) + 0.0 * y
    sagittal = [((0, 66, 14), (0, 52, 46)), ((0, 52, 46), (0, 20, 66)), ((0, 20, 66), (0, -22, 78))]
    sagittal += [((0, -22, 78), (0, -62, 66)), ((0, -62, 66), (0, -92, 34)), ((0, -92, 34), (0, -104, -8))]
    tubes = [(a, b, 3.0) for a, b in sagittal]
    for s in (-1, 1):
        tubes += [((0, -104, -10), (s * 34, -94, -20), 3.6), ((s * 34, -94, -20), (s * 58, -56, -28), 3.6)]
        tubes += [((s * 58, -56, -28), (s * 46, -46, -50), 3.4)]
    tubes += [((0, -40, 2), (0, -98, -8), 1.8)]  # straight sinus
    venous = capsules(x, y, z, tubes)
    fossa = np.maximum(z - tent_height, y + 22.0)
    return (
        falx.astype(np.float32),
        np.broadcast_to(tentorium, SHAPE_ZYX).astype(np.float32),
        venous,
        np.broadcast_to(fossa, SHAPE_ZYX).astype(np.float32),
    )


@functools.lru_cache(maxsize=1)
def load_template() -> Template:
    """Build the template (about 10 s, once per process).

    Raises
    ------
    FileNotFoundError
        When nilearn's packaged maps are absent.
    """
    x, y, z = ras_grid_mm()
    grey, white, t1 = (_on_grid(*_map(kind)) for kind in ("gm", "wm", "t1"))
    brain = ndimage.binary_fill_holes(t1 > 0.15)
    csf = np.clip(1.0 - grey - white, 0.0, 1.0) * brain
    cavity = _cavity(np.asarray(brain, np.bool_))
    cord = capsules(x, y, z, [((0, -42, -60), (0, -46, -152), 5.0)])
    white = np.maximum(white, np.clip(0.5 - cord / SPACING_MM, 0.0, 1.0) * (z < -58) * (1.0 - grey))
    bone, air = _bone_and_air()
    sides = (-1, 1)
    globe = ellipsoids(x, y, z, [((s * 32, 62, -38), (12.5, 12.5, 12.5)) for s in sides])
    orbit = smooth_union(
        globe - 3.0, capsules(x, y, z, [((s * 30, 58, -38), (s * 18, 28, -34), 9.0) for s in sides]), 8.0
    )
    deep = ellipsoids(
        x,
        y,
        z,
        [((s * 13, 14, 8), (5, 9, 9)) for s in sides]  # caudate heads
        + [((s * 25, 4, 1), (7, 14, 9)) for s in sides]  # lentiform nuclei
        + [((s * 12, -18, 8), (8, 12, 8)) for s in sides],  # thalami
    )
    bone = np.maximum(bone, 1.5 - orbit)
    falx, tentorium, venous, fossa = _partitions()
    fields = {
        "grey": grey,
        "white": white,
        "cavity_mm": cavity,
        "ventricle_mm": _ventricles(csf),
        "bone_mm": bone,
        "air_mm": air,
        "skin_mm": _skin(cavity),
        "orbit_mm": orbit,
        "globe_mm": globe,
        "falx_mm": falx,
        "tentorium_mm": tentorium,
        "venous_mm": venous,
        "deep_grey_mm": deep,
        "posterior_fossa_mm": fossa,
    }
    stacked = np.stack([np.broadcast_to(fields[name], SHAPE_ZYX) for name in FIELDS]).astype(np.float32)
    return Template(stacked)
