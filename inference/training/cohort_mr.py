"""The synthetic MR cohort: one axial T2 head per seed with its truth, and a folder of DICOM series with labels.

``draw_scene`` decides the patient, ``draw_mr`` how a scanner shows it: two scanners given the same seed show the same
patient. ``write_cohort`` writes the same voxels as DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from inference.labels import PUBLISHED_LABELS
from inference.training.anatomy import Traits, draw_head, draw_traits
from inference.training.cohort_files import CohortStudy, Progress, write_studies
from inference.training.dicom_writer import MR_IMAGE_STORAGE, SeriesHeader, synthetic_uid
from inference.training.mr_lesions import PAINTERS, draw_categories
from inference.training.mr_mass import displaced, draw_mass, paint_mass
from inference.training.mr_scene import Scene, compose
from inference.training.mr_signal import SCANNERS, render, slice_profile
from inference.training.mr_variants import paint_variants
from inference.volume import Geometry, SliceSource, Volume

FINE_MM = (2.0, 1.25, 1.25)
FIELD_MM = (230.0, 200.0)
CATEGORIES = PUBLISHED_LABELS[1:]
COHORT_STEP = 100_000  # cohorts of different seeds share no study
VISIBLE_MM2 = 6.0  # a slice counts as positive when it shows at least this much lesion,
VISIBLE_SHARE = 0.2  # in voxels of which it fills at least this share

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MrTruth:
    """What is in a synthetic MR.

    Attributes
    ----------
    lesions
        0..1 ``[z, y, x]``: share of each voxel that is lesion, of any category.
    slice_labels
        Boolean ``[z, 8]``: abnormal, then the seven categories, as far as they show on single slices.
    study_labels
        Boolean ``[8]``; atrophy is here and on no slice.
    facts
        Row of ``truth.csv``.
    """

    lesions: Array
    slice_labels: npt.NDArray[np.bool_]
    study_labels: npt.NDArray[np.bool_]
    facts: dict[str, object]


def draw_scene(seed: int, *, prevalence: float = 0.5, fine_mm: tuple[float, float, float] = FINE_MM) -> Scene:
    """Draw a patient: a head, its normal variants and, with probability ``prevalence``, its abnormalities."""
    rng = np.random.default_rng([seed, 21])
    abnormal = rng.random() < prevalence
    categories = draw_categories(rng) if abnormal else ()
    head_rng, lesion_rng, variant_rng, tissue_rng = rng.spawn(4)
    traits = _traits(head_rng, categories)
    head = draw_head(head_rng, spacing_mm=fine_mm, size_mm=FIELD_MM, traits=traits)
    scene = compose(tissue_rng, head)
    if "mass" in categories:
        mass = draw_mass(lesion_rng, scene)
        pushed = displaced(head, mass)
        if pushed is not head:
            scene = compose(tissue_rng, pushed)
        scene.facts |= {"mass": mass.kind, "mass_radius_mm": round(mass.radius_mm, 1)}
        paint_mass(scene, lesion_rng, mass)
    scene.facts["variants"] = paint_variants(scene, variant_rng)
    for category in categories:
        if category in PAINTERS:
            PAINTERS[category](scene, lesion_rng)
    scene.facts |= {"categories": list(categories), "age_years": round(traits.age_years, 1)}
    return scene


def _traits(rng: np.random.Generator, categories: tuple[str, ...]) -> Traits:
    """Age fits the disease; atrophy exceeds what any age explains; involution without it does not."""
    ages = (18.0, 100.0)
    if "small_vessel_disease" in categories:
        ages = (52.0, 100.0)
    elif "white_matter_inflammation" in categories:
        ages = (18.0, 62.0)
    traits = draw_traits(rng)
    for _ in range(30):
        if ages[0] <= traits.age_years <= ages[1]:
            break
        traits = draw_traits(rng)
    grown, gap, amount = traits.ventricle_growth_mm, traits.sulcus_gap_mm, traits.atrophy
    if "atrophy" in categories:
        return replace(
            traits,
            atrophy=float(rng.uniform(0.75, 1.0)),
            ventricle_growth_mm=max(grown, 1.0) + float(rng.uniform(1.5, 4.5)),
            sulcus_gap_mm=max(gap, 1.0) + float(rng.uniform(1.2, 3.2)),
        )
    return replace(traits, atrophy=min(amount, 0.75), ventricle_growth_mm=min(grown, 2.4), sulcus_gap_mm=min(gap, 2.4))


def draw_mr(seed: int, *, prevalence: float = 0.5, scanner: str = "mixed") -> tuple[Volume, MrTruth]:
    """Draw one axial T2 series.

    Parameters
    ----------
    seed
        Decides everything about the study.
    prevalence
        Share of abnormal studies.
    scanner
        ``"A"``, ``"B"``, ``"wide"`` or ``"mixed"`` (drawn).

    Returns
    -------
    Volume, MrTruth
        Signal ``[z, y, x]`` of whole numbers; slices 3 to 6 mm thick, gaps up to 1.5 mm.
    """
    return acquire(draw_scene(seed, prevalence=prevalence), seed, scanner=scanner)


def acquire(scene: Scene, seed: int, *, scanner: str = "mixed") -> tuple[Volume, MrTruth]:
    """Show a scene on a scanner; ``seed`` decides the protocol, the noise and the gain."""
    volume, _, _, truth = acquire_parts(scene, seed, scanner=scanner)
    return volume, truth


def acquire_parts(
    scene: Scene, seed: int, *, scanner: str = "mixed", pixel_mm: float | None = None
) -> tuple[Volume, Array, dict[str, Array], MrTruth]:
    """Like :func:`acquire`, with the tissue fractions and the lesions by category on its slices."""
    rng = np.random.default_rng([seed, 22])
    settings = SCANNERS[scanner if scanner != "mixed" else str(rng.choice(["A", "B", "wide", "wide"]))]
    thickness, gap = float(rng.uniform(*settings.thickness_mm)), float(rng.uniform(*settings.gap_mm))
    thickness, gap = round(thickness * 2) / 2, round(gap, 1)
    first = float(rng.uniform(0, thickness))
    fine_mm = scene.head.spacing_zyx_mm
    profile = slice_profile(scene.head.labels.shape[0] * fine_mm[0], fine_mm[0], thickness, gap, first)
    drawn_pixel = float(rng.uniform(*settings.pixel_mm))
    pixel = pixel_mm or drawn_pixel
    lesions = {name: on_slices(lesion[None], profile, fine_mm[1] / pixel)[0] for name, lesion in scene.lesions.items()}
    fractions = on_slices(scene.fractions, profile, fine_mm[1] / pixel)
    spacing = (thickness + gap, pixel, pixel)
    gain = float(np.exp(rng.normal(5.6, 0.5)))
    signal = render(rng, fractions, spacing, settings, native_pixel_mm=drawn_pixel) * np.float32(gain)
    facts = scene.facts | {
        "scanner": settings.name,
        "manufacturer": settings.manufacturer,
        "field_tesla": float(rng.choice(settings.field_tesla)),
        "slice_thickness_mm": thickness,
        "gap_mm": gap,
        "pixel_mm": round(pixel, 3),
    }
    signal = np.asarray(np.clip(np.round(signal), 0, 32767), np.float32)
    volume = _volume(signal, scene, spacing, first + thickness / 2)
    return volume, fractions, lesions, _truth(lesions, "atrophy" in _planned(scene), spacing, signal.shape, facts)


def _planned(scene: Scene) -> list[str]:
    planned = scene.facts["categories"]
    return list(planned) if isinstance(planned, list) else []


def on_slices(fields: Array, profile: Array, zoom: float) -> Array:
    """Average fine ``[channel, z, y, x]`` to slices and give them ``zoom`` times the pixels in plane."""
    channels, depth, rows, columns = fields.shape
    slices = (profile @ fields.reshape(channels, depth, -1)).reshape(channels, len(profile), rows, columns)
    if abs(zoom - 1.0) < 1e-6:
        return np.asarray(slices, np.float32)
    shape = (round(rows * zoom), round(columns * zoom))
    image = torch.from_numpy(np.ascontiguousarray(slices))
    return np.asarray(
        functional.interpolate(image, size=shape, mode="bilinear", align_corners=False).numpy(), np.float32
    )


def _truth(
    lesions: dict[str, Array],
    atrophy: bool,
    spacing: tuple[float, float, float],
    shape: tuple[int, ...],
    facts: dict[str, object],
) -> MrTruth:
    """A finding that no slice shows is none: labels follow what can be seen."""
    slice_labels = np.zeros((shape[0], len(PUBLISHED_LABELS)), np.bool_)
    anything = np.zeros(shape, np.float32)
    for name, lesion in lesions.items():
        visible = (lesion > VISIBLE_SHARE).sum(axis=(1, 2)) * spacing[1] * spacing[2] >= VISIBLE_MM2
        slice_labels[:, PUBLISHED_LABELS.index(name)] = visible
        np.maximum(anything, lesion, out=anything)
    slice_labels[:, 0] = slice_labels[:, 1:].any(axis=1)
    study = np.asarray(slice_labels.any(axis=0), np.bool_)
    study[PUBLISHED_LABELS.index("atrophy")] |= atrophy
    study[0] = study[1:].any()
    volume_ml = float((anything > 0.3).sum()) * spacing[0] * spacing[1] * spacing[2] / 1000
    facts = facts | {"lesion_ml": round(volume_ml, 2), "positive_slices": int(slice_labels[:, 0].sum())}
    return MrTruth(lesions=anything, slice_labels=slice_labels, study_labels=study, facts=facts)


def _volume(signal: Array, scene: Scene, spacing: tuple[float, float, float], first_mm: float) -> Volume:
    fine, step = scene.head.affine_lps_mm, scene.head.spacing_zyx_mm
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]])
    affine[:3, 3] = fine[:3, 3] + np.array(
        [(spacing[2] - step[2]) / 2, (spacing[1] - step[1]) / 2, first_mm - step[0] / 2]
    )
    count = len(signal)
    geometry = Geometry(
        shape_zyx=(signal.shape[0], signal.shape[1], signal.shape[2]),
        affine_lps_mm=affine,
        frame_of_reference_uid="",
        slices=tuple(
            SliceSource(sop_instance_uid=f"2.25.{1 + z}", sop_class_uid=MR_IMAGE_STORAGE) for z in range(count)
        ),
        positions_mm=tuple(float(affine[2, 3] + z * spacing[0]) for z in range(count)),
    )
    return Volume(voxels=signal, geometry=geometry, modality="MR")


def mr_study(seed: int, prevalence: float, scanner: str, number: int) -> CohortStudy:
    """Draw study ``number`` of cohort ``seed``; scanners A and B show the same patients."""
    study_seed = seed * COHORT_STEP + number
    volume, truth = draw_mr(study_seed, prevalence=prevalence, scanner=scanner)
    key = f"mr-{study_seed}-{scanner}-{prevalence}"
    return CohortStudy(
        key=key,
        volume=_with_uids(volume, key),
        header=_header(key, truth, patient=f"mr-{study_seed}-{prevalence}"),
        labels=truth.study_labels,
        slice_labels=truth.slice_labels,
        mask=(truth.lesions > 0.3).astype(np.uint8),
        facts=truth.facts,
    )


def _with_uids(volume: Volume, key: str) -> Volume:
    slices = tuple(
        replace(source, sop_instance_uid=synthetic_uid(key, "slice", z))
        for z, source in enumerate(volume.geometry.slices)
    )
    return replace(volume, geometry=replace(volume.geometry, slices=slices))


def _header(key: str, truth: MrTruth, *, patient: str) -> SeriesHeader:
    facts = truth.facts
    return SeriesHeader(
        key=key,
        patient=patient,
        modality="MR",
        age_years=float(str(facts["age_years"])),
        slice_thickness_mm=float(str(facts["slice_thickness_mm"])),
        extra={"MagneticFieldStrength": str(facts["field_tesla"])},
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
    """Write ``n`` MR studies as DICOM with labels, masks and truth; returns the label file (see cohort_files)."""
    draw = partial(mr_study, seed, prevalence, scanner)
    return write_studies(draw, n, PUBLISHED_LABELS, out, processes=processes, progress=progress)
