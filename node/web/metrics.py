"""Metrics read from the intake and the ledger when Prometheus asks: counts by state and the ages that matter at night.

Labels are states, models and destinations from config.yaml; never a UID, never anything of a patient.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from node import __version__
from node.store import intake_tables as intake
from node.store.database import now, reading
from node.store.ledger_tables import deliveries, objects, series, studies, tasks
from node.study import DeliveryState, TaskState
from node.web.resources import Resources


class NodeCollector(Collector):
    """Reads the intake and the ledger once a scrape."""

    def __init__(self, shared: Resources) -> None:
        self._shared = shared

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families."""
        info = GaugeMetricFamily("falx_build_info", "Version that runs", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        usage = shutil.disk_usage(self._shared.settings.storage.folder)
        yield GaugeMetricFamily("falx_storage_free_bytes", "Free space of the storage folder", value=usage.free)
        with reading(self._shared.intake) as connection:
            yield from _intake(connection)
        with reading(self._shared.ledger) as connection:
            yield from _counts(connection)
            yield from _ages(connection)
            yield from _seconds(connection)


def _intake(connection: Connection) -> Iterator[Metric]:
    """What reception took in, holds, put aside and refused. Intake numbers are never used twice: they count."""
    held = connection.execute(
        select(func.max(intake.instances.c.seq), func.count(), func.sum(intake.instances.c.size_bytes))
    ).one()
    words = "Instances taken in since the intake was made"
    yield CounterMetricFamily("falx_intake_received_instances", words, value=held[0] or 0)
    yield GaugeMetricFamily("falx_intake_instances", "Instances held", value=held[1])
    yield GaugeMetricFamily("falx_intake_bytes", "Size of the instances held", value=held[2] or 0)
    open_now = connection.scalar(select(func.count()).select_from(intake.associations)) or 0
    yield GaugeMetricFamily("falx_intake_associations", "Associations that are open", value=open_now)
    counted = (
        ("falx_intake_quarantined", "Objects put aside, by reason", intake.quarantine.c.code),
        ("falx_intake_refused", "Instances refused and not sent again, by DIMSE status", intake.refusals.c.why),
    )
    for name, what, column in counted:
        family = GaugeMetricFamily(name, what, labels=[column.name])
        for value, number in connection.execute(_grouped(column)):
            family.add_metric([value], number)
        yield family


def _counts(connection: Connection) -> Iterator[Metric]:
    counted: tuple[tuple[str, str, list[str], Any], ...] = (
        ("falx_studies", "Studies in the ledger", [], select(func.count()).select_from(studies)),
        ("falx_series", "Series by state", ["state"], _grouped(series.c.state)),
        ("falx_tasks", "Tasks by model and state", ["model", "state"], _grouped(tasks.c.model, tasks.c.state)),
        ("falx_objects", "Result objects by kind", ["kind"], _grouped(objects.c.kind)),
        (
            "falx_deliveries",
            "Deliveries by destination and state",
            ["destination", "state"],
            _grouped(deliveries.c.destination, deliveries.c.state),
        ),
    )
    for name, words, labels, statement in counted:
        family = GaugeMetricFamily(name, words, labels=labels)
        for row in connection.execute(statement):
            family.add_metric([str(value) for value in row[:-1]], row[-1])
        yield family


def _ages(connection: Connection) -> Iterator[Metric]:
    oldest = (
        (
            "falx_oldest_waiting_task_seconds",
            "Age of the oldest task that waits for a worker",
            select(func.min(tasks.c.created_at)).where(tasks.c.state == TaskState.WAITING.value),
        ),
        (
            "falx_oldest_unconfirmed_delivery_seconds",
            "Age of the oldest delivery that is neither confirmed nor dead",
            select(func.min(deliveries.c.queued_at)).where(
                deliveries.c.state.in_([DeliveryState.QUEUED.value, DeliveryState.SENT.value])
            ),
        ),
    )
    for name, words, statement in oldest:
        since = connection.scalar(statement)
        yield GaugeMetricFamily(name, words, value=(now() - since).total_seconds() if since else 0.0)


def _seconds(connection: Connection) -> Iterator[Metric]:
    total = CounterMetricFamily("falx_analysis_seconds", "Seconds spent in inference", labels=["model"])
    number = CounterMetricFamily("falx_analyses", "Analyses that ended", labels=["model"])
    statement = (
        select(tasks.c.model, func.sum(tasks.c.seconds), func.count(tasks.c.seconds))
        .where(tasks.c.seconds.is_not(None))
        .group_by(tasks.c.model)
    )
    for model, seconds, count in connection.execute(statement):
        total.add_metric([model], seconds)
        number.add_metric([model], count)
    yield total
    yield number


def _grouped(*columns: Any) -> Any:
    return select(*columns, func.count()).group_by(*columns)
