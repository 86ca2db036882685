"""Scenes of the MR cohort on the network's grid, kept on disk by seed and generator.

A cached scene holds tissue fractions, not signal: training draws a new scanner each time it looks at one.
"""

from __future__ import annotations

import ast
import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inference.intracranial_mr import mr_intracranial_mask
from inference.labels import PUBLISHED_LABELS
from inference.mr_input import PIXEL_MM, SIZE, Grid, grid_for, to_grid
from inference.result import Reason
from inference.training.cohort_mr import acquire_parts, draw_scene
from inference.training.head_template import load_template
from inference.training.mr_scene import TISSUES

HERE = Path(__file__).parent
GENERATOR = (
    "head_template.py",
    "head_shapes.py",
    "anatomy.py",
    "canvas.py",
    "mr_scene.py",
    "mr_lesions.py",
    "mr_mass.py",
    "mr_variants.py",
    "mr_signal.py",
    "cohort_mr.py",
    "mr_cache.py",
)
FINE_MM = (2.5, PIXEL_MM, PIXEL_MM)  # the network sees no more
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedScene:
    """One scene: ``fractions`` and ``lesions`` (``[7, ...]``) as 0..255, ``mask`` 0/1, all ``[..., z, SIZE, SIZE]``."""

    fractions: Bytes
    lesions: Bytes
    mask: Bytes
    step_mm: float
    slice_labels: npt.NDArray[np.bool_]
    study_labels: npt.NDArray[np.bool_]


def generator_hash() -> str:
    """Hash of the code that draws scenes (layout and comments do not count); another generator gets another cache."""
    digest = hashlib.sha256()
    for path in (*(HERE / name for name in GENERATOR), HERE.parent / "mr_input.py", HERE.parent / "intracranial_mr.py"):
        digest.update(ast.dump(ast.parse(path.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:12]


def fill_cache(
    folder: Path, seeds: Sequence[int], *, processes: int = 2, progress: Callable[[int, int], None] | None = None
) -> list[int]:
    """Draw the scenes that are not there yet; return the seeds in which a brain was found."""
    missing = [seed for seed in seeds if not (folder / f"{seed:07d}.npz").exists()]
    if missing:
        load_template()  # built once, shared by the forked workers
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            for done, _ in enumerate(pool.imap_unordered(_draw_one, [(folder, s) for s in missing]), start=1):
                if progress is not None:
                    progress(done, len(missing))
    return [seed for seed in seeds if cached_scene(folder, seed) is not None]


def _draw_one(job: tuple[Path, int]) -> None:
    torch.set_num_threads(1)
    cached_scene(*job)


def cached_scene(folder: Path, seed: int, *, prevalence: float = 0.5) -> CachedScene | None:
    """Read a scene, drawing and keeping it when it is not there; None when no brain was found in it."""
    path = folder / f"{seed:07d}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arrays = _draw(seed, prevalence)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)  # read at every look: unpacking cost more than reading
        temporary.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        if "mask" not in stored:
            return None
        return CachedScene(
            fractions=stored["fractions"],
            lesions=stored["lesions"],
            mask=stored["mask"],
            step_mm=float(stored["step_mm"]),
            slice_labels=stored["slice_labels"],
            study_labels=stored["study_labels"],
        )


def _draw(seed: int, prevalence: float) -> dict[str, npt.NDArray[Any]]:
    volume, fractions, lesions, truth = acquire_parts(
        draw_scene(seed, prevalence=prevalence, fine_mm=FINE_MM), seed, pixel_mm=PIXEL_MM
    )
    mask = mr_intracranial_mask(volume)
    if isinstance(mask, Reason):
        return {"refused": np.array(mask.code)}
    grid = grid_for(mask, volume.geometry.spacing_zyx_mm)
    slices = slice(grid.first, grid.first + grid.count)
    blank = np.zeros(volume.voxels.shape, np.float32)
    return {
        "fractions": _bytes([fractions[i] for i in range(len(TISSUES))], grid),
        "lesions": _bytes([lesions.get(name, blank) for name in PUBLISHED_LABELS[1:]], grid),
        "mask": (to_grid(mask.astype(np.float32), grid) > 0.5).astype(np.uint8),
        "step_mm": np.array(volume.geometry.spacing_zyx_mm[0]),
        "slice_labels": truth.slice_labels[slices],
        "study_labels": truth.study_labels,
    }


def _bytes(fields: list[npt.NDArray[np.float32]], grid: Grid) -> Bytes:
    out = np.zeros((len(fields), grid.count, SIZE, SIZE), np.uint8)
    for index, one in enumerate(fields):
        if one.any():
            out[index] = np.clip(np.round(255 * to_grid(one, grid)), 0, 255)
    return out
