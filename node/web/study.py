"""A study's page: its slices with the evidence of each, the findings, where every result object has got to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy import RowMapping
from starlette.responses import Response

from node.errors import Rejected
from node.store import ledger, outbox
from node.store.database import now, reading
from node.study import CT_HAEMORRHAGE, DeliveryState, TaskState
from node.web.heatmaps import heat_png, heat_positions_mm
from node.web.pixels import SeriesPixels, series_pixels
from node.web.queries import StudyView, study_view
from node.web.resources import Resources, Shared, page
from node.web.security import ActingAdmin, Viewer

router = APIRouter(prefix="/studies/{study}")


@router.get("")
def study_page(request: Request, shared: Shared, session: Viewer, study: str) -> Response:
    """The page."""
    view = _view(shared, study)
    current = [task for task in view.tasks if task["superseded_by"] is None and not task["shadow"]]
    older = [task for task in view.tasks if task not in current]
    retryable = any(task["state"] == TaskState.FAILED for task in current) or any(
        row["state"] == DeliveryState.DEAD for rows in view.deliveries.values() for row in rows
    )
    return page(
        request,
        "study.html",
        session,
        view=view,
        current=current,
        older=older,
        retryable=retryable,
        shown=_first_series(view, current),
        heated={row["task_id"] for row in view.objects if row["role"] == "heatmap"},
    )


@router.post("/retry")
def retry(shared: Shared, session: ActingAdmin, study: str) -> Response:
    """Send dead deliveries again and repeat failed analyses."""
    with shared.ledger.begin() as connection:
        sent = outbox.retry(connection, study, now())
        repeated = ledger.retry_failed(connection, study, now())
        detail = f"{sent} deliveries, {repeated} analyses"
        ledger.record(connection, "retry", study, at=now(), actor=session.name, detail=detail)
    return RedirectResponse(f"/studies/{study}", status_code=303)


@router.get("/series/{series}/slices")
def slices(shared: Shared, session: Viewer, study: str, series: str) -> Response:
    """What the viewer needs before it draws: size, window, and the source of every slice."""
    pixels = _pixels(shared, study, series)
    depth, rows, columns = pixels.values.shape
    return JSONResponse(
        {
            "slices": depth,
            "rows": rows,
            "columns": columns,
            "window": pixels.window,
            "unit": pixels.unit,
            "aspect": pixels.aspect,
            "sources": [
                {"sop_instance_uid": uid, "frame": frame, "position_mm": position}
                for uid, frame, position in zip(
                    pixels.sop_instance_uids, pixels.frame_numbers, pixels.positions_mm, strict=True
                )
            ],
        }
    )


@router.get("/series/{series}/slices/{index}")
def slice_values(shared: Shared, session: Viewer, study: str, series: str, index: int) -> Response:
    """One slice as little-endian int16, row by row."""
    values = _pixels(shared, study, series).values
    if not 0 <= index < len(values):
        raise Rejected("unknown_slice", f"the series has {len(values)} slices")
    return Response(values[index].astype("<i2").tobytes(), media_type="application/octet-stream")


@router.get("/tasks/{task}/heatmap")
def heatmap(shared: Shared, session: Viewer, study: str, task: int) -> Response:
    """Where the frames of a task's heatmap lie, so that the viewer can put each on its slice."""
    rows = [row for row in _view(shared, study).objects if row["task_id"] == task and row["role"] == "heatmap"]
    frames = [
        {"object": row["sop_instance_uid"], "frame": frame, "position_mm": position}
        for row in rows
        if row["profile"] == rows[0]["profile"]
        for frame, position in enumerate(heat_positions_mm(shared.settings.storage.folder / row["path"]))
    ]
    return JSONResponse({"frames": frames})


@router.get("/objects/{sop}/{frame}.png")
def heatmap_frame(shared: Shared, session: Viewer, study: str, sop: str, frame: int) -> Response:
    """One frame of a stored heatmap."""
    for row in _view(shared, study).objects:
        if row["sop_instance_uid"] == sop and row["role"] == "heatmap":
            return Response(heat_png(shared.settings.storage.folder / row["path"], frame), media_type="image/png")
    raise Rejected("unknown_object", "falx has made no such heatmap")


def _view(shared: Resources, study: str) -> StudyView:
    with reading(shared.ledger) as connection:
        view = study_view(connection, study)
    if view is None:
        raise Rejected("unknown_study", "falx does not know this study")
    return view


def _first_series(view: StudyView, current: Sequence[RowMapping]) -> str:
    """The series a model read, CT before MR; else the first received."""
    for task in sorted(current, key=lambda row: row["model"] != CT_HAEMORRHAGE):
        if task["series_instance_uid"]:
            return str(task["series_instance_uid"])
    return next((str(row["series_instance_uid"]) for row in view.series if row["for_analysis"]), "")


def _pixels(shared: Resources, study: str, series: str) -> SeriesPixels:
    with reading(shared.ledger) as connection:
        rows: Sequence[Any] = ledger.instances_of(connection, series)
    if not rows or rows[0]["study_instance_uid"] != study:
        raise Rejected("unknown_series", "falx does not hold this series")
    files = [shared.settings.storage.folder / row["path"] for row in rows]
    return shared.pixels.get((series, len(files)), lambda: series_pixels(files))
