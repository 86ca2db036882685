"""The embedding map of an archive, which the labelling page shows: one Parquet file a label set, a point a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, func, select

from node.store import labels_files
from node.store.labels_tables import label_files, reports


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPoint:
    """A report's place on the map, both coordinates 0..1."""

    row_id: int
    report_id: str
    x: float
    y: float


def _place(folder: Path, archive: str) -> Path:
    return folder / "maps" / archive


def sample(connection: Connection, folder: Path, archive: str, size: int) -> tuple[list[int], list[str], list[str]]:
    """Row ids, report ids and texts of at most ``size`` current reports, spread evenly over the archive."""
    total = int(
        connection.scalar(select(func.count()).where(reports.c.archive == archive, reports.c.until_set.is_(None))) or 0
    )
    step = max(1, -(-total // size))
    number = func.row_number().over(order_by=reports.c.row_id).label("number")
    ranked = (
        select(reports.c.row_id, reports.c.report_id, reports.c.file_id, reports.c.file_row, number)
        .where(reports.c.archive == archive, reports.c.until_set.is_(None))
        .subquery()
    )
    chosen = (
        select(ranked, label_files.c.path)
        .join(label_files, label_files.c.file_id == ranked.c.file_id)
        .where(ranked.c.number % step == 0)
        .order_by(ranked.c.file_id, ranked.c.file_row)
    )
    rows = connection.execute(chosen).all()
    texts: list[str] = []
    for path in dict.fromkeys(row.path for row in rows):
        wanted = [row.file_row for row in rows if row.path == path]
        stored = labels_files.read(folder, path, wanted)
        texts += [stored[row].text for row in wanted]
    return [row.row_id for row in rows], [row.report_id for row in rows], texts


def write_map(folder: Path, archive: str, set_id: int, points: Sequence[MapPoint]) -> Path:
    """Keep the map of a label set."""
    target = _place(folder, archive) / f"{set_id:06d}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = target.with_suffix(".part")
    columns = {name: [getattr(point, name) for point in points] for name in ("row_id", "report_id", "x", "y")}
    pq.write_table(pa.table(columns), unfinished)
    os.replace(unfinished, target)
    return target


def read_map(folder: Path, archive: str, set_id: int | None = None) -> list[MapPoint]:
    """The newest map of an archive (or that of one set); empty when none was made: ``falx labels map`` makes one."""
    place = _place(folder, archive)
    files = sorted(place.glob("*.parquet")) if place.is_dir() else []
    if set_id is not None:
        files = [file for file in files if file.stem == f"{set_id:06d}"]
    return [MapPoint(**row) for row in pq.read_table(files[-1]).to_pylist()] if files else []
