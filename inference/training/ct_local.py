"""A hospital's own head CTs as training studies: prepared once and kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.ct_input import prepare_ct
from inference.intracranial import intracranial_mask
from inference.labels import HAEMORRHAGE_KINDS
from inference.result import Reason
from inference.training.ct_cache import PreparedStudy
from inference.training.label_file import Labels
from inference.volume import Volume

COLUMNS = ("intracranial_haemorrhage", *HAEMORRHAGE_KINDS)


def keep_study(volume: Volume, labels: Labels, slice_labels: Mapping[str, Labels], path: Path) -> Reason | None:
    """Prepare a volume and write it to ``path`` (npz); return why it cannot be used, if it cannot."""
    mask = intracranial_mask(volume)
    if isinstance(mask, Reason):
        return mask
    prepared = prepare_ct(volume, mask)
    by_slice = np.full((len(prepared.hu), len(COLUMNS)), np.nan, np.float32)
    for source, target in zip(volume.geometry.slices, prepared.group, strict=True):
        known = slice_labels.get(source.sop_instance_uid)
        if known is not None and target >= 0:
            by_slice[target] = np.fmax(by_slice[target], _vector(known))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(
            file,
            hu=np.clip(np.round(prepared.hu), -1100, 3000).astype(np.int16),
            mask=prepared.mask,
            slice_labels=by_slice,
            labels=_vector(labels),
        )
    temporary.replace(path)
    return None


def load_study(path: Path) -> PreparedStudy:
    """Read a kept study; no mask of the blood is known."""
    with np.load(path, allow_pickle=False) as stored:
        return PreparedStudy(
            hu=stored["hu"],
            mask=stored["mask"],
            blood=None,
            slice_labels=stored["slice_labels"],
            labels=stored["labels"],
        )


def _vector(labels: Labels) -> npt.NDArray[np.float32]:
    values = [labels.get(name) for name in COLUMNS]
    return np.array([np.nan if v is None else float(v) for v in values], np.float32)
