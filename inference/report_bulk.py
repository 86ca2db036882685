"""Labels a file of reports on several processes: order kept, memory bounded, every row accounted for."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from inference.labels import REPORT_LABELS
from inference.report_files import Row, chunks, parse_row
from inference.report_labels import ReportLabeller, ReportLabels

_WAITING_CHUNKS_PER_PROCESS = 3


@dataclass(slots=True)
class BulkCounts:
    """What became of the rows: ``rows`` = ``labelled`` + ``declined`` + ``unreadable``; ``flags`` counts each flag."""

    rows: int = 0
    labelled: int = 0
    declined: int = 0
    unreadable: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)

    def add(self, other: BulkCounts) -> None:
        """Add another's counts."""
        self.rows += other.rows
        self.labelled += other.labelled
        self.declined += other.declined
        self.unreadable += other.unreadable
        self.flags.update(other.flags)
        self.present.update(other.present)


_labeller: ReportLabeller | None = None


def _start_worker(folder: Path | None) -> None:
    global _labeller  # noqa: PLW0603 (one model a process, loaded once)
    import torch

    torch.set_num_threads(1)
    _labeller = ReportLabeller.load(folder)


def _label_in_worker(lines: list[bytes]) -> tuple[bytes, BulkCounts]:
    if _labeller is None:
        raise RuntimeError("the worker was not started by _start_worker")
    return label_lines(_labeller, lines)


def label_lines(labeller: ReportLabeller, lines: list[bytes]) -> tuple[bytes, BulkCounts]:
    """Label JSON lines; return the output lines, one for each, and the counts."""
    rows = [parse_row(line) for line in lines]
    answers = iter(
        labeller.label([row.text for row in rows if not row.problem], [row.modality for row in rows if not row.problem])
    )
    identity = labeller.model_id
    model = {"name": identity.name, "version": identity.version, "sha256": identity.weights_sha256}
    counts = BulkCounts()
    out: list[str] = []
    for row in rows:
        answer = _unreadable(row) if row.problem else next(answers)
        flags = list(answer.flags)
        if row.repaired and "repaired_encoding" not in flags:
            flags.append("repaired_encoding")
        _count(counts, row, answer, flags)
        out.append(
            json.dumps(
                {
                    "id": row.identifier,
                    "probabilities": answer.probabilities,
                    "labels": answer.labels,
                    "evidence": answer.evidence,
                    "flags": flags,
                    "model": model,
                }
            )
        )
    return ("\n".join(out) + "\n").encode(), counts


def _unreadable(row: Row) -> ReportLabels:
    return ReportLabels(
        probabilities={},
        labels=dict.fromkeys(REPORT_LABELS),
        evidence=dict.fromkeys(REPORT_LABELS, ()),
        flags=("unreadable_row", row.problem),
    )


def _count(counts: BulkCounts, row: Row, answer: ReportLabels, flags: list[str]) -> None:
    counts.rows += 1
    counts.flags.update(flags)
    if row.problem:
        counts.unreadable += 1
    elif answer.usable:
        counts.labelled += 1
        counts.present.update(label for label, value in answer.labels.items() if value == 1)
    else:
        counts.declined += 1


def label_file(
    source: Path,
    write: Callable[[bytes], object],
    *,
    folder: Path | None = None,
    processes: int = 2,
    watch: Callable[[int], None] = lambda rows: None,
) -> BulkCounts:
    """Label ``source`` and hand the output lines to ``write`` in the order of the input.

    Parameters
    ----------
    source
        JSONL, CSV or Parquet with ``id``, ``text`` and ``modality``.
    write
        Called with whole lines of JSON in UTF-8.
    folder
        Model folder; None for the shipped model.
    processes
        1 labels in this process.
    watch
        Hears how many rows are done.
    """
    total = BulkCounts()
    for data, counts in _labelled_chunks(source, folder, processes):
        write(data)
        total.add(counts)
        watch(total.rows)
    return total


def _labelled_chunks(source: Path, folder: Path | None, processes: int) -> Iterator[tuple[bytes, BulkCounts]]:
    if processes == 1:
        labeller = ReportLabeller.load(folder)
        yield from (label_lines(labeller, lines) for lines in chunks(source))
        return
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[tuple[bytes, BulkCounts]]] = deque()
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=(folder,)) as pool:
        for lines in chunks(source):
            waiting.append(pool.submit(_label_in_worker, lines))
            if len(waiting) >= processes * _WAITING_CHUNKS_PER_PROCESS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
