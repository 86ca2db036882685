"""The synthetic CT cohort: one head CT per seed, its truth, and a folder of DICOM series with labels.

``draw_ct`` makes a study in memory and ``write_cohort`` the same voxels as DICOM, so training, tests, the demo and a
hospital's dry run read the same heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.intracranial import BONE_HU
from inference.labels import HAEMORRHAGE_KINDS
from inference.training.anatomy import Head, draw_head, draw_traits
from inference.training.canvas import Canvas, push_brain
from inference.training.cohort_files import CohortStudy, Progress, write_studies
from inference.training.ct_tissue import (
    SCANNERS,
    Scanner,
    acquire,
    add_table,
    beam_hardening,
    clip_like_export,
    compose_hu,
)
from inference.training.dicom_writer import CT_IMAGE_STORAGE, SeriesHeader, synthetic_uid
from inference.training.lesions import Bleed, draw_bleed, paint_bleed
from inference.training.mimics import paint_fracture, paint_mimics, paint_scalp_swelling, paint_surgery, site_on_vault
from inference.volume import Geometry, SliceSource, Volume

LABELS = ("intracranial_haemorrhage", *HAEMORRHAGE_KINDS)
MATRIX = 256
COHORT_STEP = 100_000
KIND_SHARES = (0.30, 0.13, 0.24, 0.22, 0.11)
VISIBLE_MM2 = 10.0  # a slice counts as positive when it shows at least this much blood, half a voxel or more of it,
VISIBLE_HU = 8.0  # which changes the picture by this much and does not drown in bone

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CtTruth:
    """What is in a synthetic CT.

    Attributes
    ----------
    blood
        Fractions 0..1 per kind ``[5, z, y, x]`` in the order of :data:`inference.labels.HAEMORRHAGE_KINDS`.
    slice_labels
        Boolean ``[z, 6]``: any haemorrhage, then the five kinds.
    facts
        Row of ``truth.csv``: volumes, thickness, HU, age of the blood, fracture, mimics, scanner, patient's age.
    """

    blood: Array
    slice_labels: npt.NDArray[np.bool_]
    facts: dict[str, object]

    @property
    def study_labels(self) -> npt.NDArray[np.bool_]:
        """Boolean ``[6]``: any haemorrhage, then the five kinds."""
        return np.asarray(self.slice_labels.any(axis=0))


def draw_ct(
    seed: int, *, prevalence: float = 0.5, scanner: str = "mixed", anatomy_seed: int | None = None
) -> tuple[Volume, CtTruth]:
    """Draw one head CT.

    Parameters
    ----------
    seed
        Decides everything about the study.
    prevalence
        Share of studies with haemorrhage.
    scanner
        ``"A"``, ``"B"``, or ``"mixed"`` (drawn). Two scanners given the same seed show the same patient.
    anatomy_seed
        Head to use, by default ``seed``; several studies may share a head.

    Returns
    -------
    Volume, CtTruth
        HU ``[z, y, x]``, 256 x 256 pixels of about 1 mm; slices 3 to 5 mm thick, contiguous.
    """
    patient = np.random.default_rng([seed, 11])
    picture = np.random.default_rng([seed, 12])
    name = scanner if scanner != "mixed" else str(picture.choice(sorted(SCANNERS)))
    settings = SCANNERS[name]
    thickness = float(picture.choice(settings.thickness_mm))
    pixel_mm = float(picture.uniform(0.93, 1.02))
    head_rng = np.random.default_rng([anatomy_seed if anatomy_seed is not None else seed, 10])
    per_slice = 2
    head = draw_head(
        head_rng,
        spacing_mm=(thickness / per_slice, pixel_mm, pixel_mm),
        size_mm=(236.0, 206.0),
        traits=draw_traits(head_rng),
    )
    bleeds = _plan(patient, head, prevalence)
    for bleed in bleeds:
        if bleed.push_mm > 0.5:
            head = push_brain(head, bleed.centre_ras_mm, bleed.push_mm, max(28.0, bleed.extent_mm))
    canvas, change_hu = _paint(patient, head, bleeds)
    beam_hardening(picture, head, canvas.hu, settings)
    marks = np.concatenate([canvas.blood, change_hu[None]])
    hu, marks = acquire(picture, canvas.hu, marks, per_slice=per_slice, spacing_mm=pixel_mm, scanner=settings)
    return _finish(picture, canvas, bleeds, hu, marks, thickness, settings, key=f"ct-{seed}-{settings.name}")


def _plan(rng: np.random.Generator, head: Head, prevalence: float) -> list[Bleed]:
    if rng.random() >= prevalence:
        return []
    count = 1 + int(rng.random() < 0.3) + int(rng.random() < 0.08)
    kinds = rng.choice(len(HAEMORRHAGE_KINDS), size=count, replace=False, p=KIND_SHARES)
    return [draw_bleed(rng, head, HAEMORRHAGE_KINDS[int(k)]) for k in kinds]


def _paint(rng: np.random.Generator, head: Head, bleeds: list[Bleed]) -> tuple[Canvas, Array]:
    """Healthy head, mimics, blood, marks of trauma and surgery, each on its own random stream; what blood changed."""
    tissue_rng, mimic_rng, blood_rng, trauma_rng = rng.spawn(4)
    canvas = Canvas(head, compose_hu(tissue_rng, head), np.zeros((5, *head.labels.shape), np.float32))
    canvas.facts["mimics"] = paint_mimics(canvas, mimic_rng)
    before = canvas.hu.copy()
    for bleed in bleeds:
        paint_bleed(canvas, blood_rng, bleed)
    change_hu = canvas.hu - before
    site = site_on_vault(canvas, trauma_rng)
    extradural = [b.centre_ras_mm for b in bleeds if b.kind == "extradural"]
    if extradural and trauma_rng.random() < 0.6:
        site = extradural[0]
    fracture = trauma_rng.random() < (0.30 if bleeds else 0.22)
    if fracture:
        paint_fracture(canvas, trauma_rng, site)
    if trauma_rng.random() < (0.6 if fracture else 0.15):
        paint_scalp_swelling(canvas, trauma_rng, site)
    canvas.facts["fracture"] = fracture
    operated = trauma_rng.random() < 0.05
    canvas.facts["surgery"] = paint_surgery(canvas, trauma_rng, site_on_vault(canvas, trauma_rng)) if operated else ""
    return canvas, change_hu


def _finish(
    rng: np.random.Generator,
    canvas: Canvas,
    bleeds: list[Bleed],
    hu: Array,
    marks: Array,
    thickness_mm: float,
    scanner: Scanner,
    key: str,
) -> tuple[Volume, CtTruth]:
    head = canvas.head
    _, pixel_mm, _ = head.spacing_zyx_mm
    blood = marks[:-1]
    shown = (blood > 0.5) & (np.abs(marks[-1]) >= VISIBLE_HU) & (hu < BONE_HU)
    labels = (shown.sum(axis=(2, 3)) * pixel_mm**2 >= VISIBLE_MM2).T
    slice_labels = np.concatenate([labels.any(axis=1, keepdims=True), labels], axis=1)
    hu, offset = _pad(hu, -1000.0)
    blood, _ = _pad(blood, 0.0)
    add_table(rng, hu, pixel_mm)
    clipped = rng.random() < scanner.clip_share
    hu = clip_like_export(hu) if clipped else np.round(np.clip(hu, -1024, 3071)).astype(np.float32)
    affine = head.affine_lps_mm.copy()
    affine[:3, 0] *= thickness_mm / head.spacing_zyx_mm[0]
    affine[:3, 3] += 0.5 * (thickness_mm - head.spacing_zyx_mm[0]) * np.array([0, 0, 1.0])
    affine[:3, 3] -= affine[:3, 1] * offset[0] + affine[:3, 2] * offset[1]
    volume_ml = blood.sum(axis=(1, 2, 3)) * pixel_mm**2 * thickness_mm / 1000.0
    facts: dict[str, object] = canvas.facts | {
        "key": key,
        "age_years": round(head.traits.age_years, 1),
        "scanner": scanner.name,
        "slice_thickness_mm": thickness_mm,
        "clipped_export": clipped,
        "kinds": [b.kind for b in bleeds],
        "size_mm": [round(b.size_mm, 1) for b in bleeds],
        "blood_hu": [round(b.hu, 1) for b in bleeds],
        "blood_age": [b.age for b in bleeds],
        "push_mm": [round(b.push_mm, 1) for b in bleeds],
        "volume_ml": round(float(volume_ml.sum()), 2),
        "positive_slices": int(slice_labels[:, 0].sum()),
    }
    truth = CtTruth(blood=blood, slice_labels=slice_labels, facts=facts)
    return _volume(hu, affine, clipped, key), truth


def _pad(stack: Array, value: float) -> tuple[Array, tuple[int, int]]:
    """Centre ``[..., y, x]`` in a square matrix of 256; returns what was put before the first row and column."""
    rows, columns = (MATRIX - n for n in stack.shape[-2:])
    before = (rows // 2, columns // 2)
    widths = [(0, 0)] * (stack.ndim - 2) + [(before[0], rows - before[0]), (before[1], columns - before[1])]
    return np.pad(stack, widths, constant_values=value), before


def _volume(hu: Array, affine: npt.NDArray[np.float64], clipped: bool, key: str) -> Volume:
    slices = tuple(
        SliceSource(sop_instance_uid=synthetic_uid(key, z), sop_class_uid=CT_IMAGE_STORAGE) for z in range(len(hu))
    )
    positions = tuple(float(affine[2, 3] + z * affine[2, 0]) for z in range(len(hu)))
    geometry = Geometry(
        shape_zyx=(hu.shape[0], hu.shape[1], hu.shape[2]),
        affine_lps_mm=affine,
        frame_of_reference_uid=synthetic_uid(key, "frame"),
        slices=slices,
        positions_mm=positions,
    )
    return Volume(voxels=hu, geometry=geometry, modality="CT", notes=("hu_clipped",) if clipped else ())


def ct_study(seed: int, prevalence: float, scanner: str, number: int) -> CohortStudy:
    """Draw study ``number`` of cohort ``seed``; seeds of studies below 100,000 are kept for training."""
    study_seed = (seed + 1) * COHORT_STEP + number
    volume, truth = draw_ct(study_seed, prevalence=prevalence, scanner=scanner)
    key = str(truth.facts["key"])
    header = SeriesHeader(
        key=key,
        patient=f"ct-{study_seed}-{prevalence}",
        modality="CT",
        age_years=float(str(truth.facts["age_years"])),
        slice_thickness_mm=float(str(truth.facts["slice_thickness_mm"])),
    )
    return CohortStudy(
        key=key,
        volume=volume,
        header=header,
        labels=truth.study_labels,
        slice_labels=truth.slice_labels,
        mask=np.where(truth.blood.max(axis=0) > 0.5, 2 + truth.blood.argmax(axis=0), 0).astype(np.uint8),
        facts=truth.facts,
    )


def write_cohort(
    n: int,
    seed: int,
    out: Path,
    *,
    prevalence: float = 0.5,
    scanner: str = "mixed",
    processes: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write ``n`` CT studies as DICOM with labels, masks and truth; returns the label file (see cohort_files)."""
    draw = partial(ct_study, seed, prevalence, scanner)
    return write_studies(draw, n, LABELS, out, processes=processes, progress=progress)
