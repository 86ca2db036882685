"""Which report is which: ids for archives that have none, and the fate of a report that is met again. Pure.

An archive's own report id names one report with versions: the later one counts. Without it the accession number (else
the Study Instance UID, else the text) takes its place; a second text under the same number is then a second report of
the examination, and both are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.store.labels_values import Known, Report

NEW, CHANGED, REMODELLED = "new", "changed", "remodelled"
UNCHANGED, DUPLICATE, SUPERSEDED, CONFLICT = "unchanged", "duplicates", "superseded", "conflict"
TO_LABEL = (NEW, CHANGED, REMODELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a report: its id, what to do, and the current row it meets."""

    report_id: str
    kind: str
    known: Known | None = None


def candidate_ids(report: Report) -> list[str]:
    """The ids a report may have, in the order they are tried."""
    if report.report_id:
        return [report.report_id]
    sha256 = report.text_sha256
    name = report.accession_number or report.study_instance_uid
    return [name, f"{name}~{sha256[:12]}"] if name else [f"text~{sha256[:20]}"]


def decide(report: Report, current: Mapping[str, Known], model_sha256: str) -> Fate:
    """Return the fate of a report, given the current rows of its candidate ids."""
    ids = candidate_ids(report)
    sha256 = report.text_sha256
    for report_id in ids:
        known = current.get(report_id)
        if known is not None and known.text_sha256 == sha256:
            if known.seen:
                return Fate(report_id=report_id, kind=DUPLICATE, known=known)
            same_model = known.model_sha256 == model_sha256
            return Fate(report_id=report_id, kind=UNCHANGED if same_model else REMODELLED, known=known)
    first = current.get(ids[0])
    if first is None:
        return Fate(report_id=ids[0], kind=NEW)
    if report.report_id:
        return Fate(report_id=ids[0], kind=_version(report, first), known=first)
    if first.seen:
        return Fate(report_id=ids[-1], kind=NEW)
    return Fate(report_id=ids[0], kind=CHANGED, known=first)


def _version(report: Report, known: Known) -> str:
    """Two texts under one report id: the later one counts; with equal or unknown times only a new run may change it."""
    if report.reported_at is not None and known.reported_at is not None:
        if report.reported_at < known.reported_at:
            return SUPERSEDED
        if report.reported_at > known.reported_at:
            return CHANGED
    return CONFLICT if known.seen else CHANGED
