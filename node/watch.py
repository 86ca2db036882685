"""Watches the image models with the labels of the reports that came later: month by month, as the signal of drift.

Joined by Study Instance UID, else by accession number. The report's label is no truth of its own (it is another
model's reading of another text), but what changes from one month to the next is worth a look. Never used to judge a
single study.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from node.errors import Rejected
from node.store import labels_corrections
from node.store.labels import labels_from_text
from node.store.labels_tables import reports
from node.store.ledger_tables import studies, tasks
from node.study import CT_HAEMORRHAGE, MR_ABNORMALITY, TaskState

LABEL_OF = {CT_HAEMORRHAGE: "intracranial_haemorrhage", MR_ABNORMALITY: "abnormal"}
PAGE_ROWS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A proportion of ``n`` studies with Wilson's 95 % interval; ``value`` and the limits are None for no study."""

    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """A month's studies with both answers; the report's label counts as the reference.

    ``without_report``: analysed, but no report that says yes or no is there (yet); they are in no other figure.
    ``kappa`` is Cohen's, None when one side always says the same or there is no study.
    """

    model: str
    month: str
    studies: int
    without_report: int
    both_present: int
    only_model: int
    only_report: int
    both_absent: int
    ppv: Share
    sensitivity: Share
    specificity: Share
    agreement: Share
    kappa: float | None


def watch(labels: Connection, ledger: Connection, model: str, *, since: datetime | None = None) -> list[Month]:
    """Compare a model's current answers with the labels of the reports, per month of the analysis, oldest first.

    Parameters
    ----------
    since
        Only analyses finished after it; None: all.

    Raises
    ------
    Rejected
        For a model that has no label.
    """
    if model not in LABEL_OF:
        raise Rejected("unknown_model", f"no model is called {model!r}: {', '.join(LABEL_OF)}")
    tables: dict[str, Counter[tuple[bool, bool | None]]] = {}
    for month, present, reported in _pairs(labels, ledger, model, since):
        tables.setdefault(month, Counter())[present, reported] += 1
    return [_month(model, month, tables[month]) for month in sorted(tables)]


def _month(model: str, month: str, table: Counter[tuple[bool, bool | None]]) -> Month:
    both, only_model = table[True, True], table[True, False]
    only_report, neither = table[False, True], table[False, False]
    n = both + only_report + only_model + neither
    return Month(
        model=model,
        month=month,
        studies=n,
        without_report=table[True, None] + table[False, None],
        both_present=both,
        only_report=only_report,
        only_model=only_model,
        both_absent=neither,
        ppv=_share(both, both + only_model),
        sensitivity=_share(both, both + only_report),
        specificity=_share(neither, neither + only_model),
        agreement=_share(both + neither, n),
        kappa=_kappa(both, only_model, only_report, neither),
    )


def _kappa(both: int, only_model: int, only_report: int, neither: int) -> float | None:
    n = both + only_report + only_model + neither
    if not n:
        return None
    observed = (both + neither) / n
    by_chance = ((both + only_model) * (both + only_report) + (neither + only_model) * (neither + only_report)) / n**2
    return None if by_chance == 1.0 else (observed - by_chance) / (1.0 - by_chance)


def _share(successes: int, n: int) -> Share:
    if not n:
        return Share(n=0, value=None, low=None, high=None)
    low, high = wilson(successes, n)
    return Share(n=n, value=successes / n, low=low, high=high)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def _pairs(
    labels: Connection, ledger: Connection, model: str, since: datetime | None
) -> Iterator[tuple[str, bool, bool | None]]:
    """(month, model says present, report says present: None for no report that decides) of the studies analysed."""
    after = 0
    while page := _answers(ledger, model, after, since):
        reported = _reported(labels, page, LABEL_OF[model])
        for row in page:
            value = reported.get(row.study_instance_uid, reported.get(row.accession_number))
            present = next((f.get("present") for f in row.findings if f.get("label") == LABEL_OF[model]), None)
            if present is not None:
                yield f"{row.finished_at:%Y-%m}", bool(present), None if value is None else bool(value)
        after = page[-1].task_id


def _answers(ledger: Connection, model: str, after: int, since: datetime | None) -> Sequence[Any]:
    chosen = (
        select(tasks, studies.c.accession_number)
        .join(studies, studies.c.study_instance_uid == tasks.c.study_instance_uid)
        .where(
            tasks.c.model == model,
            tasks.c.state == TaskState.ANALYSED,
            tasks.c.shadow.is_(False),
            tasks.c.superseded_by.is_(None),
            tasks.c.task_id > after,
        )
    )
    if since is not None:
        chosen = chosen.where(tasks.c.finished_at > since)
    return ledger.execute(chosen.order_by(tasks.c.task_id).limit(PAGE_ROWS)).all()


def _reported(labels: Connection, page: Sequence[Any], label: str) -> dict[str, int | None]:
    """Study Instance UID or accession number -> the label; the latest report of an examination counts."""
    names = {row.study_instance_uid for row in page} | {row.accession_number for row in page if row.accession_number}
    chosen = select(reports).where(reports.c.until_set.is_(None), reports.c.exam.in_(names))
    rows = labels.execute(chosen.order_by(reports.c.row_id)).all()
    standing: dict[tuple[str, str], Any] = {}
    for archive in {row.archive for row in rows}:
        ids = [row.report_id for row in rows if row.archive == archive]
        for report_id, made in labels_corrections.effective(labels, archive, ids).items():
            if label in made:
                standing[archive, report_id] = made[label]
    found: dict[str, int | None] = {}
    for row in rows:
        person = standing.get((row.archive, row.report_id))
        value = person.value if person is not None else labels_from_text(row.labels)[label]
        found[row.exam] = 1 if row.addendum and found.get(row.exam) == 1 else value
    return found
