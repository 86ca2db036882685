"""Reports in JSON Lines files: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from node.archive.sources.csv_files import TableFolder
from node.archive.sources.folder import open_text
from node.store.labels_values import Flagged, Report

MAX_LINE_CHARACTERS = 64 * 1024 * 1024
LINES_TO_CHECK = 100


def json_lines(path: Path, key: str, encoding: str = "") -> Iterator[dict[str, object] | Flagged]:
    """The objects of a file; a line that is none is flagged."""
    with open_text(path, encoding) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_CHARACTERS):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield row
            else:
                yield Flagged(source_position=f"{key}, line {number}", code="unreadable_row", text="no JSON object")


class JsonlFolder(TableFolder):
    """JSON Lines; a field that a line leaves out is empty, the text field must be there."""

    suffixes = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")

    def names(self, path: Path) -> list[str]:
        """The names that occur in the first lines."""
        rows = json_lines(path, path.name, str(self.archive.options.get("encoding", "")))
        found = (row for row in islice(rows, LINES_TO_CHECK) if isinstance(row, dict))
        return list(dict.fromkeys(name for row in found for name in row))

    def records(self, path: Path, key: str) -> Iterator[Report | Flagged]:
        """Read one file."""
        for number, row in enumerate(json_lines(path, key, str(self.archive.options.get("encoding", ""))), start=1):
            if isinstance(row, Flagged):
                yield row
            elif all(column in row for column in self.columns.fields["text"]):
                yield self.columns.report(row, f"{key}, record {number}")
            else:
                yield Flagged(
                    source_position=f"{key}, record {number}",
                    code="missing_column",
                    text=f"the object has no {' + '.join(self.columns.fields['text'])}",
                )
