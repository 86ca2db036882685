"""`falx status`: what the node holds, what it waits for, and what went wrong; read from the databases."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from node.config import Settings
from node.store import intake, ledger, outbox, refusals
from node.store.database import reading
from node.store.ledger_tables import deliveries, objects, studies, tasks
from node.study import DeliveryState, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Counts by state, and the things a person has to look at."""

    series: dict[str, int]
    tasks: dict[str, int]
    deliveries: dict[str, int]
    dead: tuple[dict[str, Any], ...]
    held: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, Any], ...]
    quarantined: int
    refused: int
    free_mb: int

    @property
    def needs_attention(self) -> bool:
        """Whether a person should look."""
        return bool(self.dead or self.held or self.failed or self.quarantined or self.refused)


def read_status(settings: Settings, ledger_engine: Engine, intake_engine: Engine, limit: int = 50) -> Status:
    """Collect the status; at most ``limit`` rows of each kind of trouble."""
    with reading(ledger_engine) as connection:
        counts = ledger.counts(connection)
        by_state: Counter[str] = Counter()
        for (_destination, state), number in outbox.counts(connection).items():
            by_state[state] += number
        dead = connection.execute(
            select(
                deliveries.c.study_instance_uid,
                deliveries.c.sop_instance_uid,
                objects.c.kind,
                deliveries.c.destination,
                deliveries.c.status,
                deliveries.c.error,
            )
            .join(objects, objects.c.sop_instance_uid == deliveries.c.sop_instance_uid)
            .where(deliveries.c.state == DeliveryState.DEAD, deliveries.c.status != outbox.WITHDRAWN)
            .limit(limit)
        ).mappings()
        held = connection.execute(
            select(studies.c.study_instance_uid, studies.c.held_reason).where(studies.c.held_reason != "").limit(limit)
        ).mappings()
        failed = connection.execute(
            select(tasks.c.study_instance_uid, tasks.c.model, tasks.c.reason_code, tasks.c.reason_text)
            .where(tasks.c.state == TaskState.FAILED, tasks.c.superseded_by.is_(None))
            .limit(limit)
        ).mappings()
        return Status(
            series=counts["series"],
            tasks=counts["tasks"],
            deliveries=dict(by_state),
            dead=tuple(dict(row) for row in dead),
            held=tuple(dict(row) for row in held),
            failed=tuple(dict(row) for row in failed),
            quarantined=len(intake.quarantined(intake_engine)),
            refused=refusals.count(intake_engine),
            free_mb=shutil.disk_usage(settings.storage.folder).free // 2**20,
        )
