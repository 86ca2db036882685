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

from inference.dicom_values import VALUE_FAULTS
from inference.series_reader import Unreadable, read_volume
from inference.slice_level import SliceLevelModel, prepare
from inference.training.slice_level_project import LabelledSlices
from node.config import StorageSettings
from node.errors import Rejected
from node.ranking_import import UNREADABLE_PIXELS, read_slice, slice_values
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
    for name, files in _series(studies.rglob("*"), frozenset(truth)):
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


def _series(paths: Iterable[Path], wanted: frozenset[str] = frozenset()) -> Iterator[tuple[str, list[Path]]]:
    """Files by folder and series; with ``wanted``, of series that hold one of these SOP instances."""
    found: Mapping[tuple[str, str], list[Path]] = defaultdict(list)
    known: set[tuple[str, str]] = set()
    tags = ["SeriesInstanceUID", "SOPInstanceUID", "Rows"]
    for path in sorted(paths):
        if not path.is_file():
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        except (InvalidDicomError, OSError, EOFError, *VALUE_FAULTS):
            continue
        if "Rows" in header:
            key = (path.parent.name, str(header.get("SeriesInstanceUID", "")))
            found[key].append(path)
            if str(header.get("SOPInstanceUID", "")) in wanted:
                known.add(key)
    chosen = [(key[0], files) for key, files in found.items() if not wanted or key in known]
    for number, (folder, files) in enumerate(chosen, 1):
        yield f"{folder}#{number}", files


def _brain(model: SliceLevelModel, files: list[Path]) -> tuple[list[tuple[str, bool]], float]:
    try:
        volume = read_volume(files)
    except Unreadable:
        return [one for path in files for one in _brain_of_single(model, path)], 0.0
    started = time.process_time()
    brain = model.levels(volume).brain
    seconds = time.process_time() - started
    return [
        (source.sop_instance_uid, bool(said)) for source, said in zip(volume.geometry.slices, brain, strict=True)
    ], seconds


def _brain_of_single(model: SliceLevelModel, path: Path) -> list[tuple[str, bool]]:
    """A file that belongs to no readable series, judged by itself."""
    ds = pydicom.dcmread(path)
    spacing = [float(mm) for mm in ds.get("PixelSpacing") or ()]
    uid = str(ds.get("SOPInstanceUID", ""))
    if not uid or len(spacing) != 2 or ds.get("SamplesPerPixel", 1) != 1 or int(ds.get("NumberOfFrames") or 1) > 1:
        return []
    try:
        values = slice_values(ds, None).astype(np.float32)
    except UNREADABLE_PIXELS:
        return []
    pictures = prepare(values[None], (spacing[0], spacing[1]), ds.get("Modality") == "CT")
    return [(uid, bool(model.levels_of(pictures).brain[0]))]


def _score(pairs: list[tuple[bool, bool]]) -> dict[str, Any]:
    right = int(np.sum([said == true for said, true in pairs]))
    return {"right": right, "slices": len(pairs), "share": round(right / len(pairs), 4)}
