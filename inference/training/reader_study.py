"""A reader study beside the model (R3.5): a blinded random draw, a timed sheet for each reader, and McNemar's test."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.training.evaluation import Case, mcnemar, rates

SHEET = ("case", "present", "confidence_1_to_5", "seconds", "remark")
KEY = ("case", "study", "label", "model_probability", "model_present")


class SheetError(ValueError):
    """A filled sheet or a key that cannot be used; the message names file and line."""


def draw_cases(cases: Sequence[Case], count: int, seed: int) -> list[tuple[str, Case]]:
    """Draw ``count`` answered cases at random and give each a blinded name, ``CASE-001`` onwards."""
    answered = [c for c in cases if c.probability is not None]
    order = np.random.default_rng([seed, 61]).permutation(len(answered))[:count]
    return [(f"CASE-{number:03d}", answered[int(i)]) for number, i in enumerate(order, start=1)]


def write_study(drawn: Sequence[tuple[str, Case]], threshold: float, folder: Path) -> tuple[Path, Path]:
    """Write ``sheet.csv`` (for the readers; a copy each) and ``key.csv`` (to be kept from them)."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet, key = folder / "sheet.csv", folder / "key.csv"
    _write(sheet, SHEET, [(name, "", "", "", "") for name, _ in drawn])
    rows = [(name, c.name, int(c.label), f"{c.probability:.6f}", int(_called(c, threshold))) for name, c in drawn]
    _write(key, KEY, rows)
    return sheet, key


def score(key: Path, sheets: Sequence[Path]) -> dict[str, object]:
    """Hold filled sheets against the key: each reader's figures and seconds, and McNemar against the model.

    Raises
    ------
    SheetError
        When a sheet lacks a case of the key, or a cell is not 1 or 0.
    """
    rows = {row["case"]: row for row in _read(key, KEY)}
    names = list(rows)
    truth = [rows[n]["label"] == "1" for n in names]
    model = [rows[n]["model_present"] == "1" for n in names]
    found: dict[str, object] = {"n": len(names), "model": rates(truth, model), "readers": {}}
    readers: dict[str, object] = {}
    for path in sheets:
        filled = {row["case"]: row for row in _read(path, SHEET)}
        missing = [n for n in names if n not in filled]
        if missing:
            raise SheetError(f"{path} lacks {', '.join(missing[:5])}")
        calls = [_binary(path, filled[n]["present"], n) for n in names]
        seconds = [float(filled[n]["seconds"]) for n in names if filled[n]["seconds"].strip()]
        readers[path.stem] = rates(truth, calls) | {
            "median_seconds": float(np.median(seconds)) if seconds else None,
            "mcnemar_against_model": mcnemar(truth, calls, model),
        }
    return found | {"readers": readers, "key_sha256": hashlib.sha256(key.read_bytes()).hexdigest()}


def _called(case: Case, threshold: float) -> bool:
    return case.probability is not None and case.probability >= threshold


def _binary(path: Path, cell: str, case: str) -> bool:
    if cell.strip() not in ("0", "1"):
        raise SheetError(f"{path}, {case}: present is {cell!r}; write 1 or 0")
    return cell.strip() == "1"


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise SheetError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        return list(reader)
