"""Prepared synthetic CTs on disk, one file per seed, so that a killed training goes on where it was.

The folder's name carries a hash of the generator's source: changed code never meets old heads.
"""

from __future__ import annotations

import ast
import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.ct_input import prepare_ct, resample_like
from inference.intracranial import BONE_HU, intracranial_mask
from inference.result import Reason
from inference.training.cohort_ct import draw_ct
from inference.training.head_template import load_template

_SOURCES = (
    "training/head_template.py",
    "training/head_shapes.py",
    "training/anatomy.py",
    "training/canvas.py",
    "training/lesions.py",
    "training/mimics.py",
    "training/ct_tissue.py",
    "training/cohort_ct.py",
    "intracranial.py",
    "ct_input.py",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStudy:
    """One study as training reads it.

    ``hu`` ``[n, 192, 160]`` int16 HU; ``mask`` bool; ``blood`` uint8, per pixel 0 or 1 + index of the kind, or None
    where no mask is known; ``slice_labels`` ``[n, 6]`` and ``labels`` ``[6]`` float32 (any, then the kinds), NaN where
    unknown.
    """

    hu: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    blood: npt.NDArray[np.uint8] | None
    slice_labels: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]


def generator_hash() -> str:
    """Twelve hexadecimal digits of the SHA-256 over the generator's code (layout and comments do not count)."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(ast.dump(ast.parse((root / name).read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:12]


def fill_cache(
    folder: Path, seeds: Sequence[int], *, processes: int = 2, progress: Callable[[int, int], None] | None = None
) -> list[int]:
    """Draw and prepare the studies that are not there yet.

    Returns
    -------
    list of int
        The seeds that gave a mask, in order; a head cut off by its field of view gives none, as in life.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [s for s in seeds if not _path(folder, s).exists() and not _refused(folder, s).exists()]
    if missing:
        load_template()  # built once, shared by the forked workers
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            jobs = pool.imap_unordered(_draw_one, [(folder, seed) for seed in missing])
            for done, _ in enumerate(jobs, start=1):
                if progress is not None:
                    progress(done, len(missing))
    return [s for s in seeds if _path(folder, s).exists()]


def load_prepared(folder: Path, seed: int) -> PreparedStudy:
    """Read one prepared study."""
    with np.load(_path(folder, seed)) as arrays:
        return PreparedStudy(
            hu=arrays["hu"],
            mask=np.unpackbits(arrays["mask"], count=arrays["hu"].size).reshape(arrays["hu"].shape).astype(bool),
            blood=arrays["blood"],
            slice_labels=arrays["slice_labels"].astype(np.float32),
            labels=arrays["slice_labels"].any(axis=0).astype(np.float32),
        )


def _path(folder: Path, seed: int) -> Path:
    return folder / f"{seed:07d}.npz"


def _refused(folder: Path, seed: int) -> Path:
    return folder / f"{seed:07d}.refused"


def _draw_one(job: tuple[Path, int]) -> None:
    torch.set_num_threads(1)
    folder, seed = job
    volume, truth = draw_ct(seed)
    mask = intracranial_mask(volume)
    if isinstance(mask, Reason):
        _refused(folder, seed).write_text(mask.code)
        return
    prepared = prepare_ct(volume, mask)
    fractions = np.stack([resample_like(prepared, kind) for kind in truth.blood])
    blood = np.where((fractions.max(axis=0) > 0.4) & (prepared.hu < BONE_HU), 1 + fractions.argmax(axis=0), 0).astype(
        np.uint8
    )
    slice_labels = np.zeros((len(prepared.hu), truth.slice_labels.shape[1]), bool)
    for source, target in enumerate(prepared.group):
        if target >= 0:
            slice_labels[target] |= truth.slice_labels[source]
    slice_labels &= np.asarray(prepared.mask.any(axis=(1, 2)))[:, None]  # the topmost slice is not read
    temporary = _path(folder, seed).with_suffix(".tmp.npz")
    np.savez(
        temporary,
        hu=np.clip(np.round(prepared.hu), -1100, 3000).astype(np.int16),
        mask=np.packbits(prepared.mask),
        blood=blood,
        slice_labels=slice_labels,
    )
    temporary.replace(_path(folder, seed))
