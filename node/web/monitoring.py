"""The monitoring page: what is where, how long it took, and what needs a person, from the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from fastapi import APIRouter, Request
from sqlalchemy import Connection, func, select
from starlette.responses import Response

from node.store import labels
from node.store.database import now, reading
from node.store.ledger_tables import deliveries, tasks
from node.study import DeliveryState, TaskState
from node.watch import LABEL_OF, Month, watch
from node.web.resources import Shared, page
from node.web.security import Viewer

router = APIRouter()
DAYS = 7
WATCH_DAYS = 92  # of the image models against later reports


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """One model over the last days. Times in seconds; ``turnaround``: last image received to result ready."""

    model: str
    states: dict[str, int]
    present: int
    compute_s: tuple[float, float] | None  # median, 95th percentile
    turnaround_s: tuple[float, float] | None


@router.get("/monitoring")
def monitoring(request: Request, shared: Shared, session: Viewer) -> Response:
    """The page."""
    with reading(shared.ledger) as ledger, reading(shared.labels) as label_store:
        models = model_figures(ledger)
        destinations = _by_destination(ledger)
        oldest = ledger.scalar(
            select(func.min(deliveries.c.queued_at)).where(
                deliveries.c.state.in_([DeliveryState.QUEUED.value, DeliveryState.SENT.value])
            )
        )
        runs = labels.label_sets_of(label_store, limit=10)
        months = _months(label_store, ledger) if runs else []
    oldest_s = (now() - oldest).total_seconds() if oldest else None
    return page(
        request,
        "monitoring.html",
        session,
        models=models,
        destinations=destinations,
        oldest_s=oldest_s,
        runs=runs,
        months=months,
        watch_days=WATCH_DAYS,
        days=DAYS,
        delivery_states=[state.value for state in DeliveryState],
    )


def model_figures(connection: Connection) -> list[ModelFigures]:
    """Figures of each model over the last seven days; shadow tasks under a name of their own."""
    columns = (tasks.c.model, tasks.c.shadow, tasks.c.state, tasks.c.seconds, tasks.c.last_instance_at)
    present = tasks.c.findings[0]["present"].as_boolean().label("present")
    query = select(*columns, tasks.c.finished_at, present).where(
        tasks.c.created_at > now() - timedelta(days=DAYS), tasks.c.superseded_by.is_(None)
    )
    grouped = defaultdict(list)
    for row in connection.execute(query):
        grouped[row.model, row.shadow].append(row)
    figures = []
    for (model, shadow), rows in sorted(grouped.items()):
        finished = [row for row in rows if row.finished_at is not None]
        figures.append(
            ModelFigures(
                model=f"{model} (shadow)" if shadow else model,
                states={state.value: sum(row.state == state for row in rows) for state in TaskState},
                present=sum(row.present is True for row in rows),
                compute_s=_percentiles([row.seconds for row in finished if row.seconds is not None]),
                turnaround_s=_percentiles(
                    [(row.finished_at - row.last_instance_at).total_seconds() for row in finished]
                ),
            )
        )
    return figures


def _months(label_store: Connection, ledger: Connection) -> list[Month]:
    """Each image model against the reports of its studies, over the last days."""
    since = now() - timedelta(days=WATCH_DAYS)
    return [month for model in LABEL_OF for month in watch(label_store, ledger, model, since=since)]


def _by_destination(connection: Connection) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = defaultdict(dict)
    query = select(deliveries.c.destination, deliveries.c.state, func.count()).group_by(
        deliveries.c.destination, deliveries.c.state
    )
    for destination, state, count in connection.execute(query):
        out[destination][state] = count
    return dict(out)


def _percentiles(values: Sequence[float]) -> tuple[float, float] | None:
    if not values:
        return None
    median, high = np.percentile(values, (50, 95))
    return float(median), float(high)
