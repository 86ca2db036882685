"""What the demo waits for and shows: the state of each study in the ledger, and pictures of the heatmaps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from sqlalchemy import Engine, select

from node.config import Settings
from node.errors import FalxError
from node.store.database import open_database, reading
from node.store.ledger_tables import deliveries, objects, tasks
from node.store.ledger_tables import series as series_table
from node.study import DeliveryState, TaskState

SETTLED = {DeliveryState.CONFIRMED, DeliveryState.DEAD}
NO_TASK_S = 40.0


def follow(settings: Settings, names: dict[str, str], log: Path, longest_s: float) -> list[dict[str, Any]]:
    """Wait until every study has its answer and every object is confirmed or dead; raise FalxError after the time."""
    engine = open_database(settings.storage, "ledger")
    start = time.monotonic()
    try:
        while True:
            found = {uid: study_result(engine, uid, name) for uid, name in names.items()}
            waited_s = time.monotonic() - start
            if all(_settled(engine, uid, found[uid], waited_s) for uid in names):
                return [result for result in found.values() if result is not None]
            if waited_s > longest_s:
                open_ones = [uid for uid in names if not _settled(engine, uid, found[uid], waited_s)]
                raise FalxError(f"not confirmed after {longest_s:.0f} s: {', '.join(open_ones)}; see {log}")
            time.sleep(0.25)
    finally:
        engine.dispose()


def _settled(engine: Engine, uid: str, result: dict[str, Any] | None, waited_s: float) -> bool:
    if result is not None:
        states = [one["state"] for one in result["objects"]]
        return result["state"] != TaskState.WAITING and all(DeliveryState(s) in SETTLED for s in states)
    if waited_s < NO_TASK_S:
        return False
    with reading(engine) as connection:  # nothing of it is CT or MR: there will be no task
        modalities = connection.scalars(
            select(series_table.c.modality).where(series_table.c.study_instance_uid == uid, series_table.c.for_analysis)
        ).all()
    return not {"CT", "MR"} & set(modalities)


def study_result(engine: Engine, study_instance_uid: str, name: str) -> dict[str, Any] | None:
    """One study as ``falx demo --json`` gives it; None while it has no task."""
    with reading(engine) as connection:
        task = (
            connection.execute(
                select(tasks).where(
                    tasks.c.study_instance_uid == study_instance_uid, tasks.c.superseded_by.is_(None), ~tasks.c.shadow
                )
            )
            .mappings()
            .first()
        )
        if task is None:
            return None
        rows = (
            connection.execute(
                select(deliveries, objects.c.kind)
                .join(objects, objects.c.sop_instance_uid == deliveries.c.sop_instance_uid)
                .where(objects.c.task_id == task["task_id"])
                .order_by(deliveries.c.rank, deliveries.c.delivery_id)
            )
            .mappings()
            .all()
        )
        modality = connection.scalar(
            select(series_table.c.modality).where(series_table.c.series_instance_uid == task["series_instance_uid"])
        )
    main = task["findings"][0] if task["findings"] else {}
    first_sent = [row["sent_at"] for row in rows if row["kind"] == "SR" and row["sent_at"]]
    seconds = (min(first_sent) - task["last_instance_at"]).total_seconds() if first_sent else None
    return {
        "name": name,
        "study_instance_uid": study_instance_uid,
        "modality": modality or {"ct_haemorrhage": "CT"}.get(task["model"], "MR"),
        "label": main.get("label"),
        "probability": main.get("probability"),
        "threshold": main.get("threshold"),
        "present": main.get("present"),
        "state": task["state"],
        "reason": task["reason_text"],
        "seconds": round(seconds, 2) if seconds is not None else None,
        "objects": [
            {
                "kind": row["kind"],
                "sop_instance_uid": row["sop_instance_uid"],
                "state": row["state"],
                "confirmed_by": row["confirmed_by"] or None,
                "error": row["error"] or None,
            }
            for row in rows
        ],
    }


def write_previews(settings: Settings, found: list[dict[str, Any]], folder: Path) -> None:
    """PNGs of every heatmap that was sent: all frames of a study in one contact sheet."""
    engine = open_database(settings.storage, "ledger")
    folder.mkdir(parents=True, exist_ok=True)
    with reading(engine) as connection:
        for study in found:
            rows = connection.execute(
                select(objects.c.path).where(
                    objects.c.study_instance_uid == study["study_instance_uid"], objects.c.kind == "SC"
                )
            )
            frames = [frame for row in rows for frame in _frames(settings.storage.folder / row.path)]
            if frames:
                name = str(study["name"]).replace(" ", "-")
                Image.fromarray(_sheet(frames)).save(folder / f"{name}.png")
    engine.dispose()


def _frames(path: Path) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    pixels = pydicom.dcmread(path).pixel_array
    return list(pixels) if pixels.ndim == 4 else [pixels]


def _sheet(frames: list[np.ndarray[Any, np.dtype[np.uint8]]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    columns = min(6, len(frames))
    empty = np.zeros_like(frames[0])
    padded = frames + [empty] * (-len(frames) % columns)
    rows = [np.concatenate(padded[i : i + columns], axis=1) for i in range(0, len(padded), columns)]
    return np.concatenate(rows, axis=0)
