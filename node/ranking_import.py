"""DICOM files -> the slices of a ranking project: pixels and a window, nothing of the patient.

No header is copied: a slice keeps its int16 values, size, aspect and window. The patient becomes a keyed hash whose
key is thrown away, so that training can keep patients apart. Pictures with burned-in text are refused.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import secrets
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_rescale
from sqlalchemy import Connection, RowMapping

from inference.dicom_values import VALUE_FAULTS
from node.config import StorageSettings
from node.errors import Rejected
from node.store import rankings
from node.store.database import now

MAX_SIDE = 512
CT_BRAIN_WINDOW = (40.0, 80.0)
INT16_MAX = 32767
# pydicom's decoders raise any of these on broken or unknown pixel data
UNREADABLE_PIXELS = (OSError, AttributeError, ValueError, RuntimeError, NotImplementedError, InvalidDicomError)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingPlan:
    """What ``falx rank new`` asks for."""

    name: str
    lowest: str
    highest: str
    classes: tuple[str, ...] = ()
    batch_size: int = 8
    repeat_share: float = 0.08
    min_views: int = 3
    min_raters: int = 2
    max_error: float = 0.5
    limit: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came of it: slices taken, and how many files were left out for which reason."""

    slices: int
    patients: int
    left_out: dict[str, int]


def import_project(
    connection: Connection, storage: StorageSettings, plan: RankingPlan, files: Sequence[Path]
) -> Imported:
    """Make a project of the slices in ``files``; raise Rejected when fewer than one batch can be used."""
    values = {
        name: getattr(plan, name)
        for name in ("name", "lowest", "highest", "batch_size", "repeat_share", "min_views", "min_raters", "max_error")
    }
    at = now()
    project_id = rankings.add_project(connection, {**values, "classes": list(plan.classes)}, at)
    folder = storage.folder / "rankings" / plan.name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    left_out: Counter[str] = Counter()
    key = secrets.token_bytes(32)
    sources = list(_readable(files, left_out))
    random.Random(plan.seed).shuffle(sources)  # noqa: S311  an order, not a secret: items must not betray the position
    rows: list[dict[str, Any]] = []
    for path, frame in sources:
        if plan.limit and len(rows) == plan.limit:
            break
        row = _take(path, frame, key, left_out)
        if row is None:
            continue
        target = folder / f"{len(rows):06}.i16z"
        target.write_bytes(zlib.compress(row.pop("pixels")))
        row |= {"project_id": project_id, "item": len(rows), "path": str(target.relative_to(storage.folder))}
        rows.append(row)
    if len(rows) < plan.batch_size:
        shutil.rmtree(folder)
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "no DICOM files"
        raise Rejected("too_few_slices", f"only {len(rows)} usable slices, a batch needs {plan.batch_size}: {reasons}")
    rankings.add_slices(connection, rows)
    return Imported(slices=len(rows), patients=len({row["source_group"] for row in rows}), left_out=dict(left_out))


def _readable(files: Sequence[Path], left_out: Counter[str]) -> Iterator[tuple[Path, int | None]]:
    for path in files:
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError, *VALUE_FAULTS):
            left_out["not DICOM"] += 1
            continue
        reason = _unusable(ds)
        if reason:
            left_out[reason] += 1
        elif (count := int(ds.get("NumberOfFrames") or 1)) > 1:
            yield from ((path, frame) for frame in range(count))
        else:
            yield path, None


def _unusable(ds: Dataset) -> str:
    if "Rows" not in ds or ds.get("SamplesPerPixel", 1) != 1:
        return "not a grey picture"
    if "LOCALIZER" in list(ds.get("ImageType") or []):
        return "localizer"
    if ds.get("BurnedInAnnotation") == "YES":
        return "text burned in"
    return ""


def _take(path: Path, frame: int | None, key: bytes, left_out: Counter[str]) -> dict[str, Any] | None:
    try:
        ds = pydicom.dcmread(path)
        values = slice_values(ds, frame)
    except UNREADABLE_PIXELS:
        left_out["pixels unreadable"] += 1
        return None
    if float(values.min()) == float(values.max()):
        left_out["empty picture"] += 1
        return None
    centre, width = _window(ds, values)
    largest = float(np.abs(values).max())
    scale = 1.0 if largest <= INT16_MAX else INT16_MAX / largest
    step = -(-max(values.shape) // MAX_SIDE)
    small = (values[::step, ::step] * scale).astype("<i2")
    spacing = [float(value) for value in (ds.get("PixelSpacing") or [1, 1])]
    patient = str(ds.get("PatientID") or ds.get("StudyInstanceUID", ""))
    return {
        "rows": small.shape[0],
        "columns": small.shape[1],
        "aspect": spacing[0] / spacing[1],
        "window_centre": centre * scale,
        "window_width": width * scale,
        "unit": "HU" if ds.get("Modality") == "CT" else "",
        "source_sop_instance_uid": str(ds.SOPInstanceUID),
        "source_frame": None if frame is None else frame + 1,
        "source_group": hmac.new(key, patient.encode(), hashlib.sha256).hexdigest(),
        "pixels": small.tobytes(),
    }


def slice_values(ds: Dataset, frame: int | None) -> npt.NDArray[np.float64]:
    """Rescaled values of one frame ``[row, column]``, bright where the picture is bright."""
    pixels = ds.pixel_array if frame is None else ds.pixel_array[frame]
    values = np.asarray(apply_rescale(pixels, ds), dtype=np.float64)
    return -values if ds.get("PhotometricInterpretation") == "MONOCHROME1" else values


def _window(ds: Dataset, values: npt.NDArray[np.float64]) -> tuple[float, float]:
    if ds.get("Modality") == "CT":
        return CT_BRAIN_WINDOW
    low, high = np.percentile(values, (1.0, 99.5))
    return float(low + high) / 2, max(float(high - low), 1.0)


def read_slice(storage: StorageSettings, row: RowMapping) -> npt.NDArray[np.int16]:
    """The int16 values ``[row, column]`` of a project's slice."""
    content = zlib.decompress((storage.folder / row["path"]).read_bytes())
    return np.frombuffer(content, dtype="<i2").reshape(row["rows"], row["columns"])
