"""Sorts the records of a batch by their fate; knows those of the batch itself, which no table holds yet. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from node.archive import identity
from node.store.labels_values import Batch, Flagged, Known, Report


@dataclass(slots=True)
class Chosen:
    """A report that is to be labelled."""

    report_id: str
    report: Report
    part_id: int
    kind: str
    replaces: int | None


class Sorter:
    """Fills a batch with everything but the labels; ``chosen`` is what is to be labelled."""

    def __init__(self, batch: Batch, current: dict[str, Known], model_sha256: str) -> None:
        self.batch, self.current, self.model_sha256 = batch, current, model_sha256
        self.chosen: list[Chosen] = []

    def take(self, part_id: int, record: Report | Flagged | bool) -> None:
        """Take one record."""
        if isinstance(record, Flagged):
            self._flag(part_id, record)
        elif isinstance(record, Report):
            fate = identity.decide(record, self.current, self.model_sha256)
            if fate.kind == identity.CONFLICT:
                text = "another text under a report id that was read before, without a later time: not labelled"
                self._flag(
                    part_id,
                    Flagged(source_position=record.source_position, code="duplicate_report_id", text=text),
                )
            elif fate.kind in identity.TO_LABEL:
                self._choose(part_id, record, fate)
            else:
                self._meet(part_id, fate)

    def _flag(self, part_id: int, what: Flagged) -> None:
        self.batch.flagged.append((part_id, what))
        self.batch.count(part_id, "flagged")

    def _meet(self, part_id: int, fate: identity.Fate) -> None:
        self.batch.count(part_id, fate.kind)
        if fate.kind == identity.UNCHANGED and fate.known is not None:
            self.batch.seen.append((fate.known.row_id, part_id))
            self.current[fate.report_id] = replace(fate.known, seen=True)

    def _choose(self, part_id: int, report: Report, fate: identity.Fate) -> None:
        pending = -fate.known.row_id - 1 if fate.known is not None and fate.known.row_id < 0 else None
        if pending is not None:  # a later version of a report of this very batch
            earlier = self.chosen[pending]
            counts = self.batch.counts[earlier.part_id]
            setattr(counts, earlier.kind, getattr(counts, earlier.kind) - 1)
            counts.superseded += 1
            self.batch.count(part_id, earlier.kind)
            self.chosen[pending] = replace(earlier, report=report, part_id=part_id)
        else:
            self.batch.count(part_id, fate.kind)
            replaces = fate.known.row_id if fate.known is not None else None
            self.chosen.append(Chosen(fate.report_id, report, part_id, fate.kind, replaces))
            pending = len(self.chosen) - 1
        self.current[fate.report_id] = Known(
            row_id=-pending - 1,
            text_sha256=report.text_sha256,
            model_sha256=self.model_sha256,
            set_id=0,
            reported_at=report.reported_at,
            seen=True,
        )
