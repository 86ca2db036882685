"""The labelling page: reports with their deciding sentences, corrections one by one or by the group, the map.

Reports and what is searched for may name patients: they travel in request bodies, never in URLs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from inference.labels import REPORT_LABELS
from node.errors import Rejected
from node.store import labels, labels_corrections, labels_map
from node.store.database import reading
from node.store.labels import ReportRow
from node.web.resources import Shared, page
from node.web.security import ActingAnnotator, Annotator

router = APIRouter(prefix="/labels")
How = Literal["manual", "accept", "lasso", "keyword", "regex"]


class Wanted(BaseModel):
    """Which reports to list."""

    model_config = ConfigDict(extra="forbid")
    label: str = ""
    value: int | None = 1
    after: int = 0
    search: str = Field(default="", max_length=500)
    regex: bool = False
    rows: list[int] = Field(default_factory=list, max_length=20_000)  # a lasso: list these


class Made(BaseModel):
    """A correction of one report or of a group."""

    model_config = ConfigDict(extra="forbid")
    report_ids: list[str] = Field(min_length=1, max_length=20_000)
    values: dict[str, int | None]
    how: How = "manual"
    detail: str = Field(default="", max_length=500)


@router.get("")
def labelling_page(request: Request, shared: Shared, session: Annotator, archive: str = "") -> Response:
    """The page for one archive, by default the first."""
    with reading(shared.labels) as connection:
        archives = labels.archives(connection)
        runs = labels.label_sets_of(connection, archive or next(iter(archives), ""), limit=1)
    chosen = archive if archive in archives else next(iter(archives), "")
    run = next(iter(runs), None)
    return page(request, "labels.html", session, archives=archives, archive=chosen, names=REPORT_LABELS, run=run)


@router.post("/{archive}/list")
def listed(shared: Shared, session: ActingAnnotator, archive: str, wanted: Wanted) -> Response:
    """A page of reports: by label, by search, or those of a lasso."""
    folder = shared.settings.storage.folder
    with reading(shared.labels) as connection:
        if wanted.search:
            within = frozenset(wanted.rows) if wanted.rows else None
            found = labels.search(
                connection, folder, archive, wanted.search, is_regex=wanted.regex, limit=1000, within=within
            )
            rows, after, complete = found.rows, found.next_after, found.complete
        elif wanted.rows:
            rows, after, complete = labels.reports_of(connection, archive, wanted.rows), None, True
        else:
            found = labels.list_reports(connection, archive, label=wanted.label, value=wanted.value, after=wanted.after)
            rows, after, complete = found.rows, found.next_after, True
    return JSONResponse({"rows": [_row(row) for row in rows], "after": after, "complete": complete})


@router.post("/{archive}/report")
def report(
    shared: Shared, session: ActingAnnotator, archive: str, report_id: Annotated[str, Body(embed=True)]
) -> Response:
    """One report: its text cut where evidence begins and ends, the model's labels and people's corrections."""
    with reading(shared.labels) as connection:
        view = labels.get_report(connection, shared.settings.storage.folder, archive, report_id)
    if view is None:
        raise Rejected("unknown_report", "the archive has no such report any more")
    return JSONResponse(
        {
            **_row(view.row),
            "parts": cut_text(view.text, view.evidence),
            "status": view.status,
            "model": f"{view.model.name} {view.model.version}",
            "model_labels": {name: view.model_labels.get(name) for name in REPORT_LABELS},
            "probabilities": dict(view.probabilities),
            "text_changed": view.text_changed_since_correction,
            "history": [
                {
                    "label": made.label,
                    "value": made.value,
                    "by": made.made_by,
                    "at": made.made_at.isoformat(timespec="seconds"),
                    "how": made.how,
                    "undone": bool(made.undone_by),
                }
                for made in view.corrections
            ],
        }
    )


@router.post("/{archive}/correct")
def correct(shared: Shared, session: ActingAnnotator, archive: str, made: Made) -> Response:
    """Set labels of one report or a group; who, when and how is stored with each."""
    with shared.labels.begin() as connection:
        labels_corrections.correct(
            connection,
            shared.settings.storage.folder,
            archive=archive,
            report_ids=made.report_ids,
            values=made.values,
            by=session.name,
            how=made.how,
            detail=made.detail,
        )
    return JSONResponse({"corrected": len(made.report_ids)})


@router.post("/{archive}/undo")
def undo(shared: Shared, session: ActingAnnotator, archive: str) -> Response:
    """Take back this person's latest correction."""
    with shared.labels.begin() as connection:
        group = labels_corrections.undo_last(connection, archive, session.name)
    if group is None:
        raise Rejected("nothing_to_undo", "there is no correction of yours to take back")
    return JSONResponse({"undone": True})


@router.get("/{archive}/map")
def embedding_map(shared: Shared, session: Annotator, archive: str) -> Response:
    """The points of the archive's newest map with their labels as text (1, 0 or ? each)."""
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", archive):
        raise Rejected("unknown_archive", "there is no such archive")
    points = labels_map.read_map(shared.settings.storage.folder, archive)
    with reading(shared.labels) as connection:
        rows = {row.row_id: row for row in labels.reports_of(connection, archive, [point.row_id for point in points])}
    return JSONResponse(
        {
            "points": [
                {"row": point.row_id, "x": point.x, "y": point.y, **_row(rows[point.row_id])}
                for point in points
                if point.row_id in rows
            ]
        }
    )


def cut_text(text: str, evidence: Mapping[str, Sequence[tuple[int, int]]]) -> list[dict[str, Any]]:
    """Cut a text at the ends of all spans: ``[{"text", "labels"}]``; spans are half-open, in code points."""
    spans = [(start, end, name) for name, own in evidence.items() for start, end in own]
    ends = sorted({0, len(text), *(edge for start, end, _ in spans for edge in (start, end) if edge <= len(text))})
    return [
        {"text": text[a:b], "labels": [name for start, end, name in spans if start <= a and b <= end]}
        for a, b in itertools.pairwise(ends)
    ]


def _row(row: ReportRow) -> dict[str, Any]:
    return {
        "row": row.row_id,
        "id": row.report_id,
        "accession": row.accession_number,
        "modality": row.modality,
        "at": row.reported_at.date().isoformat() if row.reported_at else "",
        "labels": labels_text(row.labels),
        "corrected": sorted(row.corrected),
        "flags": list(row.flags),
    }


def labels_text(values: Mapping[str, int | None]) -> str:
    """Labels as the page reads them, one sign each in the order of ``REPORT_LABELS``."""
    signs = {1: "1", 0: "0", None: "?"}
    return "".join(signs[values.get(name)] for name in REPORT_LABELS)
