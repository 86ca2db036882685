"""Slices for the slice-level model: the labelled ones of a ranking project, and those of DICOM folders with a CSV."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from inference.series_reader import Unreadable, read_volume
from inference.slice_level import SliceLevelModel
from inference.training.slice_level_project import LabelledSlices
from node.config import StorageSettings
from node.errors import Rejected
from node.ranking_import import read_slice
from node.store import rankings
from node.store.database import open_database, reading


def labelled_slices(storage: StorageSettings, project: str) -> LabelledSlices:
    """Pixels, classes, scores and patients of a project's newest label set; uncertain slices are left out."""
    with reading(open_database(storage, "rankings")) as connection:
        row = rankings.project_named(connection, project)
        found = rankings.newest_label_set(connection, row["project_id"])
        if found is None:
            raise Rejected("no_labels", f"{project} has no label set yet; set cut-points on its page and store them")
        slices = {one["item"]: one for one in rankings.slices_of(connection, row["project_id"])}
    kept = [label for label in found[1] if not label["uncertain"]]
    return LabelledSlices(
        pictures=[read_slice(storage, slices[label["item"]]) for label in kept],
        is_ct=[slices[label["item"]]["unit"] == "HU" for label in kept],
        aspect=[slices[label["item"]]["aspect"] for label in kept],
        labels=[label["class_index"] for label in kept],
        scores=[label["score"] for label in kept],
        groups=[slices[label["item"]]["source_group"] for label in kept],
        classes=tuple(row["classes"]),
    )


def evaluate(labels: Path, studies: Path, folder: Path | None, no_brain: Path | None) -> dict[str, Any]:
    """Brain or no brain, against a CSV and a folder without brain; border slices are left out."""
    model = SliceLevelModel.load(folder)
    with labels.open(newline="", encoding="utf-8") as file:
        truth = {row["sop_instance_uid"]: row for row in csv.DictReader(file)}
    series: dict[str, dict[str, Any]] = {}
    spent_s, placed = 0.0, 0
    for name, files in _series(studies.rglob("*")):
        if no_brain is not None and no_brain in files[0].parents:
            continue
        said, seconds = _brain(model, files)
        spent_s, placed = spent_s + seconds, placed + len(said)
        pairs = [
            (brain, truth[uid]["brain"] == "1")
            for uid, brain in said
            if uid in truth and truth[uid].get("border", "0") != "1"
        ]
        if pairs:
            series[name] = _score(pairs)
    for name, files in _series(no_brain.rglob("*")) if no_brain else ():
        said, seconds = _brain(model, files)
        if said:
            series[name] = _score([(brain, False) for _, brain in said])
    right, total = (sum(row[key] for row in series.values()) for key in ("right", "slices"))
    return {
        "series": series,
        "right": right,
        "slices": total,
        "share": right / total if total else 0.0,
        "ms_per_slice": 1000 * spent_s / max(1, placed),
        "model": f"{model.model.name} {model.model.version} {model.model.weights_sha256[:12]}",
        "note": "RESEARCH USE ONLY. The shipped model was trained on synthetic heads.",
    }


def _series(paths: Iterable[Path]) -> Iterator[tuple[str, list[Path]]]:
    found: Mapping[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(paths):
        if not path.is_file():
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Rows"])
        except (InvalidDicomError, OSError):
            continue
        if "Rows" in header:
            found[path.parent.name, str(header.get("SeriesInstanceUID", ""))].append(path)
    for number, ((folder, _), files) in enumerate(found.items(), 1):
        yield f"{folder}#{number}", files


def _brain(model: SliceLevelModel, files: list[Path]) -> tuple[list[tuple[str, bool]], float]:
    try:
        volume = read_volume(files)
    except Unreadable:
        return [], 0.0
    started = time.perf_counter()
    brain = model.levels(volume).brain
    seconds = time.perf_counter() - started
    return [
        (source.sop_instance_uid, bool(said)) for source, said in zip(volume.geometry.slices, brain, strict=True)
    ], seconds


def _score(pairs: list[tuple[bool, bool]]) -> dict[str, Any]:
    right = int(np.sum([said == true for said, true in pairs]))
    return {"right": right, "slices": len(pairs), "share": round(right / len(pairs), 4)}
