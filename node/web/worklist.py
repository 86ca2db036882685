"""The worklist: studies in the order they should be read, live.

Searching is a POST: what is searched for may be a patient's name, which must not stand in a URL or a log.
"""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from node.store.accounts import Session
from node.store.database import reading
from node.web.queries import worklist
from node.web.resources import Resources, Shared, page
from node.web.security import ActingViewer, Viewer
from node.web.worklist_order import FILTERS

router = APIRouter()
PERIODS = {0: "any time", 1: "the last day", 7: "7 days", 30: "30 days"}


@router.get("/")
def first(request: Request, shared: Shared, session: Viewer, state: str = "all", days: int = 0) -> Response:
    """The page as it opens."""
    return _answer(request, shared, session, "worklist.html", state=state, days=days)


@router.post("/")
def searched(
    request: Request,
    shared: Shared,
    session: ActingViewer,
    state: Annotated[str, Form()] = "all",
    days: Annotated[int, Form()] = 0,
    search: Annotated[str, Form(max_length=200)] = "",
    number: Annotated[int, Form(ge=1)] = 1,
) -> Response:
    """The page for a search; the script of the page asks for the rows alone (``X-Part: rows``)."""
    part = request.headers.get("X-Part") == "rows"
    template = "worklist_rows.html" if part else "worklist.html"
    return _answer(request, shared, session, template, state=state, days=days, search=search, number=number)


def _answer(
    request: Request,
    shared: Resources,
    session: Session,
    template: str,
    *,
    state: str,
    days: int,
    search: str = "",
    number: int = 1,
) -> Response:
    started, worked = time.perf_counter(), time.thread_time()
    kind = state if state in FILTERS else "all"
    with reading(shared.ledger) as connection:
        found = worklist(connection, shared.worklist.places(), kind=kind, days=days, search=search, page=number)
    response = page(
        request,
        template,
        session,
        found=found,
        filters=FILTERS,
        periods=PERIODS,
        kind=kind,
        days=days,
        search=search,
    )
    wall_ms, cpu_ms = 1000 * (time.perf_counter() - started), 1000 * (time.thread_time() - worked)
    response.headers["Server-Timing"] = f"worklist;dur={wall_ms:.0f}, cpu;dur={cpu_ms:.0f}"
    return response
