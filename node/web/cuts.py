"""Cut-points on the sorted strip: bisecting it, and the label set that comes of the experts' medians."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy import RowMapping
from starlette.responses import Response

from inference.ranking_labels import Classes, cut_classes
from node.errors import Rejected
from node.store import rankings
from node.store.database import now, reading
from node.web.agreement import agreement
from node.web.ranking_desk import Standing
from node.web.resources import Resources, Shared, page
from node.web.security import ActingAnnotator, Annotator

router = APIRouter(prefix="/ranking/{name}/cuts")


class Cut(BaseModel):
    """Where one boundary lies: between two neighbours on the strip."""

    model_config = ConfigDict(extra="forbid")
    boundary: int
    score: float


@router.get("")
def cuts_page(request: Request, shared: Shared, session: Annotator, name: str) -> Response:
    """The page; its script fetches the strip."""
    project = _project(shared, name)
    if len(project["classes"]) < 2:
        raise Rejected("no_classes", "this project has no classes to cut; make it with --classes")
    return page(request, "cuts.html", session, project=project)


@router.get("/strip")
def strip(shared: Shared, session: Annotator, name: str) -> Response:
    """The slices by score, the experts' cut-points so far, classes and agreement."""
    project = _project(shared, name)
    return JSONResponse(_strip(shared, project, session.name))


@router.put("")
def set_cut(shared: Shared, session: ActingAnnotator, name: str, cut: Cut) -> Response:
    """Keep an expert's cut-point."""
    project = _project(shared, name)
    if not 0 <= cut.boundary < len(project["classes"]) - 1:
        raise Rejected("bad_boundary", f"boundary must be 0 to {len(project['classes']) - 2}")
    with shared.rankings.begin() as connection:
        rankings.set_cut(connection, project["project_id"], session.name, cut.boundary, cut.score, now())
    return JSONResponse(_strip(shared, project, session.name))


@router.post("/labels")
def store_labels(shared: Shared, session: ActingAnnotator, name: str) -> Response:
    """Store the classes as a new version of the project's labels; needs the cut-points of two experts."""
    project = _project(shared, name)
    state = shared.desk.standing(project)
    with shared.rankings.begin() as connection:
        given = complete_cuts(project, rankings.cuts_of(connection, project["project_id"]))
        if len(given) < 2:
            raise Rejected("too_few_experts", "labels need the cut-points of two experts; so far there are fewer")
        classes = _classes(state, given)
        set_id = rankings.add_label_set(
            connection,
            project["project_id"],
            _summary(project, state, classes, given),
            [
                {
                    "item": int(item),
                    "score": float(state.scale.scores[item]),
                    "error": float(state.scale.errors[item]),
                    "class_index": int(classes.labels[item]),
                    "uncertain": bool(classes.uncertain[item]),
                }
                for item in _kept(state)
            ],
            session.name,
            now(),
        )
    return JSONResponse({"set": set_id})


def _project(shared: Resources, name: str) -> RowMapping:
    with reading(shared.rankings) as connection:
        return rankings.project_named(connection, name)


def _kept(state: Standing) -> Any:
    return np.flatnonzero((state.views > 0) & ~state.excluded)


def complete_cuts(project: RowMapping, cuts: dict[str, dict[int, float]]) -> dict[str, list[float]]:
    """The cut-points of the experts who have set all of them, ascending."""
    needed = len(project["classes"]) - 1
    return {rater: [own[k] for k in range(needed)] for rater, own in cuts.items() if len(own) == needed}


def _classes(state: Standing, given: dict[str, list[float]]) -> Classes:
    try:
        return cut_classes(state.scale.scores, state.scale.errors, given)
    except ValueError as error:
        raise Rejected("bad_cuts", str(error)) from None


def _summary(project: RowMapping, state: Standing, classes: Classes, given: dict[str, list[float]]) -> dict[str, Any]:
    kept = _kept(state)
    return {
        "classes": list(project["classes"]),
        "cuts": list(classes.cuts),
        "experts": given,
        "rater_weights": state.scale.rater_weights,
        "counts": [int((classes.labels[kept] == k).sum()) for k in range(len(project["classes"]))],
        "uncertain": int(classes.uncertain[kept].sum()),
        "agreement": agreement(state, given, len(project["classes"])),
    }


def _strip(shared: Resources, project: RowMapping, rater: str) -> dict[str, Any]:
    state = shared.desk.standing(project)
    kept = _kept(state)
    order = kept[np.argsort(state.scale.scores[kept])]
    with reading(shared.rankings) as connection:
        rows = {row["item"]: row for row in rankings.slices_of(connection, project["project_id"])}
        cuts = rankings.cuts_of(connection, project["project_id"])
        newest = rankings.newest_label_set(connection, project["project_id"])
    given = complete_cuts(project, cuts)
    medians_ascend = bool(given) and bool((np.diff(np.median(list(given.values()), axis=0)) > 0).all())
    return {
        "tiles": [
            {
                "item": int(item),
                "score": float(state.scale.scores[item]),
                "error": float(state.scale.errors[item]),
                "rows": rows[int(item)]["rows"],
                "columns": rows[int(item)]["columns"],
                "aspect": rows[int(item)]["aspect"],
                "window": [rows[int(item)]["window_centre"], rows[int(item)]["window_width"]],
            }
            for item in order
        ],
        "mine": {str(boundary): score for boundary, score in cuts.get(rater, {}).items()},
        "experts": len(given),
        "summary": _summary(project, state, _classes(state, given), given) if medians_ascend else None,
        "stored": newest[0]["set_id"] if newest else None,
    }
