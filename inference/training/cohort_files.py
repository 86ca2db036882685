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
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.training.dicom_writer import SeriesHeader, synthetic_uid, write_series
from inference.training.head_template import load_template
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
    draw: Callable[[int], CohortStudy],
    count: int,
    names: Sequence[str],
    out: Path,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Draw and write studies 0 to ``count`` - 1; returns the label file. However many processes, the same files.

    Parameters
    ----------
    draw
        Gives the study of a number; with several processes it must be picklable.
    names
        Label names, as columns of both label files.
    """
    (out / "masks").mkdir(parents=True, exist_ok=True)
    write = partial(_write_one, draw, tuple(names), out)
    written: list[_Rows] = []
    with ExitStack() as stack:
        if processes > 1 and count > 1:
            load_template()  # built once, shared by the forked workers
            fork = multiprocessing.get_context("fork")
            pool = stack.enter_context(fork.Pool(min(processes, count), initializer=_one_thread))
            each: Iterable[_Rows] = pool.imap(write, range(count))
        else:
            each = map(write, range(count))
        for rows in each:
            written.append(rows)
            if progress is not None:
                progress(len(written), count)
    _write_csv(out / "slice_labels.csv", [row for rows in written for row in rows.slices])
    _write_csv(out / "truth.csv", [rows.truth for rows in written])
    return _write_csv(out / "labels.csv", [rows.labels for rows in written])


@dataclass(frozen=True, slots=True)
class _Rows:
    """What one study adds to the three tables."""

    labels: dict[str, object]
    slices: list[dict[str, object]]
    truth: dict[str, object]


def _one_thread() -> None:
    torch.set_num_threads(1)


def _write_one(draw: Callable[[int], CohortStudy], names: Sequence[str], out: Path, number: int) -> _Rows:
    study = draw(number)
    name = f"{number + 1:05d}"
    write_series(study.volume, study.header, out / "series" / name)
    np.savez_compressed(out / "masks" / f"{name}.npz", mask=study.mask, labels=np.array(list(names)))
    of_study: dict[str, object] = {"study_instance_uid": synthetic_uid(study.key, "study")}
    slices = [
        of_study | {"sop_instance_uid": source.sop_instance_uid} | _columns(names, labels)
        for source, labels in zip(study.volume.geometry.slices, study.slice_labels, strict=True)
    ]
    facts = {k: json.dumps(v) if isinstance(v, list | tuple | dict) else v for k, v in study.facts.items()}
    return _Rows(of_study | _columns(names, study.labels), slices, {"folder": f"series/{name}"} | of_study | facts)


def _columns(names: Sequence[str], values: npt.NDArray[np.bool_]) -> dict[str, object]:
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path
