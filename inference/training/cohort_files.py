"""A synthetic cohort as a folder: DICOM series, label files, masks and truth.

OUT/series/<number>/NNNN.dcm   one series each
OUT/labels.csv                 one row per study (docs/labels.md)
OUT/slice_labels.csv           one row per slice, with sop_instance_uid
OUT/masks/<number>.npz         ``mask`` [z, y, x]: 0, or 1 + number of the label it shows (see ``labels``)
OUT/truth.csv                  what was drawn: kinds, sizes, density, fracture, mimics, scanner, age
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.training.dicom_writer import SeriesHeader, synthetic_uid, write_series
from inference.volume import Volume

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortStudy:
    """One study ready to be written: ``labels`` and ``slice_labels`` [z, n] in the order of the cohort's label names;
    ``mask`` uint8 as in the file; ``facts`` the row of ``truth.csv``."""

    key: str
    volume: Volume
    header: SeriesHeader
    labels: npt.NDArray[np.bool_]
    slice_labels: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.uint8]
    facts: Mapping[str, object]


def write_studies(
    studies: Iterable[CohortStudy], count: int, names: Sequence[str], out: Path, progress: Progress | None = None
) -> Path:
    """Write studies as they are drawn; returns the label file.

    Parameters
    ----------
    names
        Label names, as columns of both label files.
    """
    (out / "masks").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    slice_rows: list[dict[str, object]] = []
    truths: list[dict[str, object]] = []
    for number, study in enumerate(studies):
        name = f"{number + 1:05d}"
        write_series(study.volume, study.header, out / "series" / name)
        np.savez_compressed(out / "masks" / f"{name}.npz", mask=study.mask, labels=np.array(list(names)))
        uid = synthetic_uid(study.key, "study")
        rows.append({"study_instance_uid": uid} | _columns(names, study.labels))
        for source, labels in zip(study.volume.geometry.slices, study.slice_labels, strict=True):
            identity: dict[str, object] = {"study_instance_uid": uid, "sop_instance_uid": source.sop_instance_uid}
            slice_rows.append(identity | _columns(names, labels))
        facts = {k: json.dumps(v) if isinstance(v, list | tuple | dict) else v for k, v in study.facts.items()}
        truths.append({"folder": f"series/{name}", "study_instance_uid": uid} | facts)
        if progress is not None:
            progress(number + 1, count)
    _write_csv(out / "slice_labels.csv", slice_rows)
    _write_csv(out / "truth.csv", truths)
    return _write_csv(out / "labels.csv", rows)


def _columns(names: Sequence[str], values: npt.NDArray[np.bool_]) -> dict[str, object]:
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path
