"""Ranking slices: eight in a row, or one at a time; every action is saved as it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import RowMapping
from starlette.responses import Response

from node.errors import Rejected
from node.store import rankings
from node.store.accounts import Session
from node.store.database import now, reading
from node.store.rankings import SKIPPED, SUBMITTED, Arrangement
from node.web.ranking_desk import figures
from node.web.resources import Resources, Shared, page
from node.web.security import ActingAnnotator, Annotator, Viewer

router = APIRouter(prefix="/ranking")
Mode = Literal["rank", "single"]


class Sent(BaseModel):
    """What the page sends of a batch."""

    model_config = ConfigDict(extra="forbid")
    order: list[int] = Field(min_length=1, max_length=64)
    ties: list[int] = Field(default_factory=list, max_length=64)
    artefacts: list[int] = Field(default_factory=list, max_length=64)
    answer: int | None = Field(default=None, ge=0, le=20)
    history: list[dict[str, Any]] = Field(default_factory=list, max_length=200)

    def arrangement(self) -> Arrangement:
        """As the store takes it."""
        return Arrangement(
            order=tuple(self.order),
            ties=tuple(self.ties),
            artefacts=tuple(self.artefacts),
            answer=self.answer,
            history=tuple(self.history),
        )


@router.get("")
def projects_page(request: Request, shared: Shared, session: Viewer) -> Response:
    """All projects with their progress."""
    with reading(shared.rankings) as connection:
        projects = rankings.all_projects(connection)
    shown = [(project, figures(project, shared.desk.standing(project), session.name)) for project in projects]
    return page(request, "ranking_projects.html", session, projects=shown)


@router.get("/{name}")
def ranking_page(request: Request, shared: Shared, session: Annotator, name: str, mode: Mode = "rank") -> Response:
    """The page; its script fetches the batch."""
    project = _project(shared, name)
    if mode == "single" and not project["classes"]:
        raise Rejected("no_classes", "this project has no classes; make it with --classes to label one slice at a time")
    return page(request, "ranking.html", session, project=project, mode=mode)


@router.get("/{name}/batch")
def batch(shared: Shared, session: Annotator, name: str, mode: Mode = "rank") -> Response:
    """The rater's batch as it stands, or a new one."""
    return _answer(shared, session, _project(shared, name), mode)


@router.put("/{name}/batches/{batch_id}")
def save(shared: Shared, session: ActingAnnotator, name: str, batch_id: int, sent: Sent) -> Response:
    """Keep one action."""
    with shared.rankings.begin() as connection:
        rankings.save(connection, batch_id, session.name, sent.arrangement(), now())
    return JSONResponse({"saved": True})


@router.post("/{name}/batches/{batch_id}/{action}")
def close(
    shared: Shared,
    session: ActingAnnotator,
    name: str,
    batch_id: int,
    action: Literal["submit", "skip"],
    sent: Sent,
) -> Response:
    """Submit or skip a batch and hand out the next."""
    project = _project(shared, name)
    arrangement = replace(sent.arrangement(), history=())  # what led to a finished order is of no use to anybody
    with shared.rankings.begin() as connection:
        row = rankings.save(connection, batch_id, session.name, arrangement, now())
        _check_answer(project, row["mode"], action, arrangement)
        rankings.close_batch(connection, row, SUBMITTED if action == "submit" else SKIPPED, now())
    return _answer(shared, session, project, row["mode"])


@router.post("/{name}/reopen")
def reopen(
    shared: Shared, session: ActingAnnotator, name: str, mode: Annotated[Mode, Body(embed=True)] = "rank"
) -> Response:
    """Take the last finished batch back."""
    project = _project(shared, name)
    with shared.rankings.begin() as connection:
        if rankings.reopen_last(connection, project["project_id"], session.name, mode, now()) is None:
            raise Rejected("nothing_to_undo", "there is no earlier batch of yours")
    return _answer(shared, session, project, mode)


@router.get("/{name}/slices/{item}")
def slice_values(shared: Shared, session: Annotator, name: str, item: int) -> Response:
    """A slice as little-endian int16; stored and sent compressed."""
    project = _project(shared, name)
    with reading(shared.rankings) as connection:
        rows = rankings.slices_of(connection, project["project_id"], [item])
    if not rows:
        raise Rejected("unknown_slice", "the project has no such slice")
    content = (shared.settings.storage.folder / rows[0]["path"]).read_bytes()
    headers = {"Content-Encoding": "deflate", "Cache-Control": "private, max-age=3600"}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _project(shared: Resources, name: str) -> RowMapping:
    with reading(shared.rankings) as connection:
        return rankings.project_named(connection, name)


def _check_answer(project: RowMapping, mode: str, action: str, arrangement: Arrangement) -> None:
    if action != "submit" or mode != "single" or arrangement.artefacts:
        return
    if arrangement.answer is None or arrangement.answer >= len(project["classes"]):
        raise Rejected("no_answer", "choose a class, mark an artefact, or skip")


def _answer(shared: Resources, session: Session, project: RowMapping, mode: str) -> Response:
    row = shared.desk.batch_for(project, session.name, mode)
    progress = figures(project, shared.desk.standing(project), session.name)
    if row is None:
        return JSONResponse({"batch": None, "progress": progress})
    with reading(shared.rankings) as connection:
        slices = {one["item"]: one for one in rankings.slices_of(connection, project["project_id"], row["items"])}
    tiles = [
        {
            "item": item,
            "rows": slices[item]["rows"],
            "columns": slices[item]["columns"],
            "aspect": slices[item]["aspect"],
            "window": [slices[item]["window_centre"], slices[item]["window_width"]],
            "unit": slices[item]["unit"],
        }
        for item in row["items"]
    ]
    # whether the batch is a repeat stays here: the rater must not know
    return JSONResponse(
        {
            "batch": row["batch_id"],
            "tiles": tiles,
            "arrangement": row["arrangement"],
            "seconds": row["seconds"],
            "progress": progress,
        }
    )
