"""Report files as a stream of JSON lines: JSONL, CSV and Parquet in, bounded memory. Knows no model.

Damage in one row becomes a row that says so (see `parse_row`); damage that concerns the whole file stops before
anything is labelled.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 64 * 2**20
CHUNK_ROWS = 256
CHUNK_BYTES = 4 * 2**20
COLUMNS = ("id", "text", "modality")


class UnreadableFile(ValueError):
    """The file as a whole cannot be labelled; the message names it and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One report of a file. ``problem`` says why it cannot be read, else it is empty."""

    identifier: object
    text: str
    modality: str
    problem: str = ""
    repaired: bool = False


def chunks(path: Path) -> Iterator[list[bytes]]:
    """Chunks of JSON lines of a ``.jsonl``, ``.csv`` or ``.parquet`` file (anything else is read as JSONL), in order.

    Raises
    ------
    UnreadableFile
        When the file is missing, or a table lacks the columns ``id`` and ``text``.
    """
    if not path.is_file():
        raise UnreadableFile(f"{path}: no such file")
    lines = {".csv": _csv_lines, ".parquet": _parquet_lines}.get(path.suffix.lower(), _json_lines)(path)
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line)
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _json_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            with path.open(encoding="utf-16", errors="replace") as wide:
                yield from (line.encode("utf-8", "replace") for line in wide if line.strip())
            return
        if start[:3] == codecs.BOM_UTF8:
            file.seek(3)
        yield from _bounded_lines(file)


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            line = b'"longer than a line may be"'
        if line.strip():
            yield line


def _csv_lines(path: Path) -> Iterator[bytes]:
    csv.field_size_limit(MAX_LINE_BYTES)
    encoding = "utf-16" if path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    with path.open(newline="", encoding=encoding, errors="surrogateescape") as file:
        rows = csv.DictReader(line.replace("\x00", " ") for line in file)
        _require_columns(path, rows.fieldnames or [])
        for row in rows:
            yield _line_of({name: row.get(name) or "" for name in COLUMNS})


def _parquet_lines(path: Path) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise UnreadableFile(f"{path} is not a Parquet file: {error}") from error
    names = list(table.schema_arrow.names)
    _require_columns(path, names)
    for batch in table.iter_batches(CHUNK_ROWS, columns=[name for name in COLUMNS if name in names]):
        for row in batch.to_pylist():
            yield _line_of(row)


def _require_columns(path: Path, names: object) -> None:
    found = list(names) if isinstance(names, (list, tuple)) else []
    missing = [name for name in ("id", "text") if name not in found]
    if missing:
        raise UnreadableFile(
            f"{path} lacks the column {' and '.join(missing)}; it has: {', '.join(found)}. "
            "Rename its columns to id, text and modality."
        )


def _line_of(row: dict[str, object]) -> bytes:
    text = row.get("text")
    damaged = isinstance(text, str) and any("\udc80" <= character <= "\udcff" for character in text)
    if damaged:
        row = {**row, "text": _from_bytes(str(text).encode("utf-8", "surrogateescape"))[0], "_repaired": True}
    return json.dumps(row, default=str).encode()


def _from_bytes(line: bytes) -> tuple[str, bool]:
    try:
        return line.decode("utf-8"), False
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace"), True


def parse_row(line: bytes) -> Row:
    """Read one JSON line; never raises. Bytes that are no UTF-8 are read as Windows-1252 and marked as repaired."""
    decoded, repaired = _from_bytes(line)
    try:
        row = json.loads(decoded, strict=False)
    except (json.JSONDecodeError, RecursionError):
        return Row(identifier=None, text="", modality="", problem="not_json")
    if not isinstance(row, dict):
        return Row(identifier=None, text="", modality="", problem="not_json")
    identifier = row.get("id")
    text = row.get("text")
    if text is None:
        return Row(identifier=identifier, text="", modality="", problem="text_missing")
    if not isinstance(text, str):
        return Row(identifier=identifier, text="", modality="", problem="text_is_no_string")
    modality = str(row.get("modality") or "").upper()
    modality = "MR" if modality in ("MR", "MRI") else modality
    return Row(
        identifier=identifier, text=text, modality=modality, repaired=repaired or bool(row.get("_repaired", False))
    )
