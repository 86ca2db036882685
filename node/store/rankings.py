"""Ranking projects in the database ``rankings``; every function works inside the caller's transaction.

Knows no pictures and no statistics: what the orders mean is ``inference.ranking``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from node.errors import Rejected
from node.store.rankings_tables import batches, cuts, label_sets, labels, projects, slices

MAX_PAUSE_S = 120.0  # a longer silence between two actions is a break, not work
OPEN, SUBMITTED, SKIPPED = "open", "submitted", "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """What a rater has done with a batch.

    ``order`` is lowest first; ``ties`` holds the items that equal their right neighbour; ``artefacts`` are left out of
    the order's meaning; ``answer`` is the class index of a single slice.
    """

    order: tuple[int, ...]
    ties: tuple[int, ...] = ()
    artefacts: tuple[int, ...] = ()
    answer: int | None = None
    history: tuple[Mapping[str, Any], ...] = field(default=())

    @staticmethod
    def of(stored: Mapping[str, Any]) -> Arrangement:
        """From its JSON."""
        return Arrangement(
            order=tuple(stored["order"]),
            ties=tuple(stored["ties"]),
            artefacts=tuple(stored["artefacts"]),
            answer=stored["answer"],
            history=tuple(stored["history"]),
        )

    def ranked(self) -> tuple[int, ...]:
        """The order without artefacts."""
        return tuple(item for item in self.order if item not in self.artefacts)


def add_project(connection: Connection, values: Mapping[str, Any], at: datetime) -> int:
    """Create a project; raise Rejected when the name is taken or malformed."""
    name = str(values["name"])
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,47}", name):
        raise Rejected("bad_name", f"project name {name!r}: use small letters, digits, - and _")
    if connection.scalar(select(projects.c.project_id).where(projects.c.name == name)) is not None:
        raise Rejected("name_taken", f"there is a ranking project {name!r} already")
    key = connection.execute(insert(projects).values(**values, revision=0, created_at=at)).inserted_primary_key
    assert key is not None
    return int(key[0])


def add_slices(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add slices to a project."""
    connection.execute(insert(slices), [dict(row) for row in rows])


def all_projects(connection: Connection) -> Sequence[RowMapping]:
    """Every project, newest first, with its number of slices."""
    count = select(func.count()).where(slices.c.project_id == projects.c.project_id).scalar_subquery()
    query = select(projects, count.label("slices")).order_by(projects.c.project_id.desc())
    return connection.execute(query).mappings().all()


def project_named(connection: Connection, name: str) -> RowMapping:
    """A project with its number of slices; raise Rejected when there is none of that name."""
    count = select(func.count()).where(slices.c.project_id == projects.c.project_id).scalar_subquery()
    query = select(projects, count.label("slices")).where(projects.c.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise Rejected("unknown_project", f"there is no ranking project {name!r}")
    return row


def revision_of(connection: Connection, project_id: int) -> int:
    """The project's revision now."""
    return int(connection.execute(select(projects.c.revision).where(projects.c.project_id == project_id)).scalar_one())


def slices_of(connection: Connection, project_id: int, items: Iterable[int] | None = None) -> Sequence[RowMapping]:
    """A project's slices by item; all, or those asked for."""
    query = select(slices).where(slices.c.project_id == project_id).order_by(slices.c.item)
    if items is not None:
        query = query.where(slices.c.item.in_(list(items)))
    return connection.execute(query).mappings().all()


def open_batch(connection: Connection, project_id: int, rater: str, mode: str) -> RowMapping | None:
    """The batch that a rater is at."""
    query = select(batches).where(
        batches.c.project_id == project_id,
        batches.c.rater == rater,
        batches.c.mode == mode,
        batches.c.state == OPEN,
    )
    return connection.execute(query).mappings().first()


def add_batch(
    connection: Connection,
    project_id: int,
    rater: str,
    mode: str,
    items: Sequence[int],
    at: datetime,
    repeat_of: int | None = None,
) -> RowMapping:
    """Open a batch for a rater."""
    connection.execute(
        insert(batches).values(
            project_id=project_id,
            rater=rater,
            mode=mode,
            state=OPEN,
            items=list(items),
            arrangement=asdict(Arrangement(order=tuple(items))),
            repeat_of=repeat_of,
            seconds=0.0,
            created_at=at,
            updated_at=at,
        )
    )
    batch = open_batch(connection, project_id, rater, mode)
    assert batch is not None
    return batch


def save(connection: Connection, batch_id: int, rater: str, arrangement: Arrangement, at: datetime) -> RowMapping:
    """Keep what a rater has done so far; the time since the last action counts as work up to two minutes.

    Raises Rejected when the batch is not the rater's or no longer open, or the arrangement is not of its slices.
    """
    batch = connection.execute(select(batches).where(batches.c.batch_id == batch_id)).mappings().first()
    if batch is None or batch["rater"] != rater:
        raise Rejected("unknown_batch", "this batch is not yours")
    if batch["state"] != OPEN:
        raise Rejected("batch_closed", "this batch was finished in another window; reload the page")
    own = set(batch["items"])
    if sorted(arrangement.order) != sorted(own) or not own.issuperset({*arrangement.ties, *arrangement.artefacts}):
        raise Rejected("bad_arrangement", "the order must hold each slice of the batch once")
    worked = min((at - batch["updated_at"]).total_seconds(), MAX_PAUSE_S)
    values = {"arrangement": asdict(arrangement), "updated_at": at, "seconds": batch["seconds"] + max(worked, 0.0)}
    connection.execute(update(batches).where(batches.c.batch_id == batch_id).values(**values))
    return batch


def close_batch(connection: Connection, batch: RowMapping, state: str, at: datetime) -> None:
    """Submit or skip a batch."""
    where = batches.c.batch_id == batch["batch_id"]
    connection.execute(update(batches).where(where).values(state=state, submitted_at=at))
    _revise(connection, batch["project_id"])


def reopen_last(connection: Connection, project_id: int, rater: str, mode: str, at: datetime) -> RowMapping | None:
    """Take the rater's last finished batch back; the open one, not yet worked on, is dropped. None: there is none."""
    mine = (batches.c.project_id == project_id, batches.c.rater == rater, batches.c.mode == mode)
    query = select(batches).where(*mine, batches.c.state != OPEN).order_by(batches.c.submitted_at.desc()).limit(1)
    last = connection.execute(query).mappings().first()
    if last is None:
        return None
    connection.execute(delete(batches).where(*mine, batches.c.state == OPEN))
    where = batches.c.batch_id == last["batch_id"]
    connection.execute(update(batches).where(where).values(state=OPEN, submitted_at=None, updated_at=at))
    _revise(connection, project_id)
    return open_batch(connection, project_id, rater, mode)


def submitted_stamps(connection: Connection, project_id: int, since: datetime | None = None) -> dict[int, datetime]:
    """When each submitted batch of a project was submitted, or those submitted since a moment."""
    query = select(batches.c.batch_id, batches.c.submitted_at)
    query = query.where(batches.c.project_id == project_id, batches.c.state == SUBMITTED)
    if since is not None:
        query = query.where(batches.c.submitted_at >= since)
    return {row.batch_id: row.submitted_at for row in connection.execute(query)}


def count_submitted(connection: Connection, project_id: int) -> int:
    """How many batches of a project are submitted."""
    query = select(func.count()).select_from(batches)
    return connection.scalar(query.where(batches.c.project_id == project_id, batches.c.state == SUBMITTED)) or 0


def submitted(connection: Connection, project_id: int, ids: Iterable[int] | None = None) -> Sequence[RowMapping]:
    """Submitted batches of a project in order of submission; all, or those asked for."""
    query = select(batches).where(batches.c.project_id == project_id, batches.c.state == SUBMITTED)
    if ids is not None:
        query = query.where(batches.c.batch_id.in_(list(ids)))
    return connection.execute(query.order_by(batches.c.submitted_at, batches.c.batch_id)).mappings().all()


def set_cut(connection: Connection, project_id: int, rater: str, boundary: int, score: float, at: datetime) -> None:
    """Set an expert's cut-point."""
    key = (cuts.c.project_id == project_id, cuts.c.rater == rater, cuts.c.boundary == boundary)
    values = {"score": score, "revision": revision_of(connection, project_id), "set_at": at}
    if connection.execute(update(cuts).where(*key).values(**values)).rowcount == 0:
        connection.execute(insert(cuts).values(project_id=project_id, rater=rater, boundary=boundary, **values))


def cuts_of(connection: Connection, project_id: int) -> dict[str, dict[int, float]]:
    """Cut-points by expert and boundary."""
    out: dict[str, dict[int, float]] = {}
    query = select(cuts).where(cuts.c.project_id == project_id).order_by(cuts.c.rater, cuts.c.boundary)
    for row in connection.execute(query).mappings():
        out.setdefault(row["rater"], {})[row["boundary"]] = row["score"]
    return out


def add_label_set(
    connection: Connection,
    project_id: int,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    by: str,
    at: datetime,
) -> int:
    """Store a version of the project's labels; returns its number."""
    values = {
        "project_id": project_id,
        "revision": revision_of(connection, project_id),
        "summary": dict(summary),
        "created_by": by,
        "created_at": at,
    }
    key = connection.execute(insert(label_sets).values(**values)).inserted_primary_key
    assert key is not None
    connection.execute(insert(labels), [{**row, "set_id": int(key[0])} for row in rows])
    return int(key[0])


def newest_label_set(connection: Connection, project_id: int) -> tuple[RowMapping, Sequence[RowMapping]] | None:
    """The newest label set with its labels by item, or None."""
    query = (
        select(label_sets).where(label_sets.c.project_id == project_id).order_by(label_sets.c.set_id.desc()).limit(1)
    )
    newest = connection.execute(query).mappings().first()
    if newest is None:
        return None
    rows = select(labels).where(labels.c.set_id == newest["set_id"]).order_by(labels.c.item)
    return newest, connection.execute(rows).mappings().all()


def _revise(connection: Connection, project_id: int) -> None:
    where = projects.c.project_id == project_id
    connection.execute(update(projects).where(where).values(revision=projects.c.revision + 1))
