"""Trains a report model on a site's own labels, and measures one against them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.labels import REPORT_LABELS, canonical
from inference.report_files import UnreadableFile, chunks, parse_row
from inference.report_labels import SHIPPED_FOLDER, ReportLabeller
from inference.report_net import ReportNet
from inference.report_scoring import compact_members
from inference.training.report_baseline import keyword_scores
from inference.training.report_encoder_fit import (
    EncoderSettings,
    adapt,
    encoder_logits,
    read_checkpoint,
    save_encoder,
    tune,
)
from inference.training.report_evaluation import as_json, evaluate, length_bias, mean_auc
from inference.training.report_fit import Example, FitSettings, fit, labelled_example, predict, synthetic_examples
from inference.training.report_recipe import fit_points, save_compact

_KEYS = ("id", "accession_number", "study_instance_uid")
_HELD_OUT_SHARE = 0.25
_LOCAL_LEARNING_RATE = 3e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledReports:
    """Reports with labels; ``unmatched`` label rows had no report, ``unknown_columns`` were not read."""

    rows: list[dict[str, Any]]
    unmatched: int
    unknown_columns: tuple[str, ...]


def read_labelled_reports(labels: Path, reports: Path | None = None) -> LabelledReports:
    """Join a label file (JSONL, CSV or Parquet; one column a label, or ``labels`` in JSONL) with the texts.

    Texts come from ``reports`` (``id``, ``text``, ``modality``), matched to the label file's ``id``,
    ``accession_number`` or ``study_instance_uid``; without ``reports`` from the label file's own ``text``.

    Raises
    ------
    UnreadableFile
        When no label is known, no text can be found, or no row matches.
    """
    table = list(_table(labels))
    columns = sorted({name for row in table for name in row} | {n for row in table for n in row.get("labels") or {}})
    known = [name for name in columns if (canonical(name) or "") in REPORT_LABELS]
    if not known:
        raise UnreadableFile(f"{labels} has no column that names a label; it has: {', '.join(columns)}")
    texts = {str(row["id"]): row for row in _texts(reports)} if reports else None
    rows: list[dict[str, Any]] = []
    for row in table:
        source = row if texts is None else next((texts[str(row[k])] for k in _KEYS if str(row.get(k)) in texts), None)
        if source is not None and isinstance(source.get("text"), str):
            found = {canonical(name): _value(value) for name, value in {**row, **(row.get("labels") or {})}.items()}
            chosen = {label: found.get(label) for label in REPORT_LABELS}
            key = next((str(row[k]) for k in _KEYS if row.get(k)), "")
            rows.append({"id": key, "text": source["text"], "modality": source.get("modality") or "", "labels": chosen})
    if not rows:
        raise UnreadableFile(
            f"no row of {labels} has a report text; give --reports with an id that the label file holds as one of: "
            + ", ".join(_KEYS)
        )
    ignored = tuple(
        name for name in columns if name not in known and name not in (*_KEYS, "text", "modality", "labels")
    )
    return LabelledReports(rows=rows, unmatched=len(table) - len(rows), unknown_columns=ignored)


def _table(path: Path) -> Iterator[dict[str, Any]]:
    import polars

    if not path.is_file():
        raise UnreadableFile(f"{path}: no such file")
    if path.suffix.lower() == ".parquet":
        yield from polars.read_parquet(path).iter_rows(named=True)
    elif path.suffix.lower() == ".csv":
        yield from polars.read_csv(path, infer_schema=False).iter_rows(named=True)
    else:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UnreadableFile(f"{path} line {number} is no JSON: {error.msg}") from error
                if isinstance(row, dict):
                    yield row


def _texts(path: Path) -> Iterator[dict[str, Any]]:
    for lines in chunks(path):
        for row in map(parse_row, lines):
            if not row.problem:
                yield {"id": row.identifier, "text": row.text, "modality": row.modality}


def _value(value: object) -> int | None:
    text = str(value).strip().lower() if value is not None else ""
    if text in ("1", "1.0", "true"):
        return 1
    return 0 if text in ("0", "0.0", "false") else None


def examples_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Example], list[dict[str, int | None]]]:
    """Examples and their reference labels; texts without a word are left out."""
    pairs = [(labelled_example(row["text"], row["modality"], row["labels"]), row["labels"]) for row in rows]
    usable = [(example, labels) for example, labels in pairs if example is not None]
    return [example for example, _ in usable], [labels for _, labels in usable]


def held_out(count: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A fixed quarter of ``count`` reports for calibration; all of them when there are fewer than eight."""
    if count < 8:
        return np.ones(count, dtype=bool)
    chosen = np.zeros(count, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(count)[: max(2, int(count * _HELD_OUT_SHARE))]] = True
    return chosen


def tune_compact(rows: Sequence[Mapping[str, Any]], out: Path, *, epochs: int, version: str) -> dict[str, Any]:
    """Fine-tune the shipped compact network on local labels, mixed half and half with fresh synthetic reports."""
    examples, references = examples_of(rows)
    apart = held_out(len(examples))
    local = [example for example, keep in zip(examples, apart, strict=True) if not keep] or examples
    members = []
    for number, net in enumerate(compact_members(SHIPPED_FOLDER)):
        total = 2 * epochs * len(local)
        settings = FitSettings(reports=total, seed=number + 1, batch=min(32, total), learning_rate=_LOCAL_LEARNING_RATE)
        members.append(fit(net, _mixed(local, epochs, number), settings))
    return _calibrate_and_save(members, examples, references, apart, out, version)


def _mixed(local: Sequence[Example], epochs: int, seed: int) -> Iterator[Example]:
    rng = np.random.default_rng(seed)
    synthetic = synthetic_examples(10**9, 4_000_000_000 + seed * 10**8)
    for _ in range(epochs):
        for index in rng.permutation(len(local)):
            yield local[index]
            yield next(synthetic)


def _calibrate_and_save(
    members: Sequence[ReportNet],
    examples: Sequence[Example],
    references: Sequence[Mapping[str, int | None]],
    apart: np.ndarray[Any, np.dtype[np.bool_]],
    out: Path,
    version: str,
) -> dict[str, Any]:
    kept = [example for example, keep in zip(examples, apart, strict=True) if keep]
    truth = [reference for reference, keep in zip(references, apart, strict=True) if keep]
    logits = np.mean([predict(net, kept)[0] for net in members], axis=0)
    points = fit_points(logits, truth)
    record = training_record(len(examples), truth, logits)
    save_compact(out, members, points, version=version, training=record, name="falx-report-labels-local",
                 intended_use="RESEARCH USE ONLY. Tuned on local labels from the shipped synthetic start.")  # fmt: skip
    return record


def tune_encoder(
    rows: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    checkpoint: Path,
    mlm: Path | None,
    settings: EncoderSettings,
    version: str,
) -> dict[str, Any]:
    """Fine-tune a local checkpoint on local labels, after masked-LM adaptation on the reports of ``mlm``."""
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        if mlm is not None:
            texts = [row["text"] for row in _texts(mlm)]
            losses = adapt(checkpoint, texts, Path(scratch), settings)
            checkpoint = Path(scratch)
        encoder = read_checkpoint(checkpoint)
        examples, references = examples_of(rows)
        apart = held_out(len(examples))
        tune(encoder, [e for e, keep in zip(examples, apart, strict=True) if not keep] or examples, settings)
    kept = [example for example, keep in zip(examples, apart, strict=True) if keep]
    truth = [reference for reference, keep in zip(references, apart, strict=True) if keep]
    logits = encoder_logits(encoder, kept)
    record = training_record(len(examples), truth, logits) | {"mlm_losses": losses}
    save_encoder(out, encoder, fit_points(logits, truth), version=version, training=record)
    return record


def training_record(count: int, truth: Sequence[Mapping[str, int | None]], logits: Any) -> dict[str, Any]:
    """What a locally trained model's metadata says of its training."""
    return {
        "synthetic": False,
        "local_reports": count,
        "held_out": len(truth),
        "held_out_results": as_json(evaluate(truth, np.asarray(logits, dtype=float))),
    }


def measure(rows: Sequence[Mapping[str, Any]], folder: Path | None) -> dict[str, Any]:
    """Label reports and compare with their reference labels, beside the keyword labeller on the same reports."""
    labeller = ReportLabeller.load(folder)
    answers = labeller.label([row["text"] for row in rows], [row["modality"] for row in rows])
    usable = [index for index, answer in enumerate(answers) if answer.usable]
    if not usable:
        raise UnreadableFile("none of the reports could be labelled: all were flagged as unusable")
    references = [rows[index]["labels"] for index in usable]
    table = np.array([[answers[index].probabilities[label] for label in REPORT_LABELS] for index in usable])
    results = evaluate(references, table, [dict(answers[index].labels) for index in usable])
    texts = [rows[index]["text"] for index in usable]
    baseline = evaluate(references, keyword_scores(texts))
    identity = labeller.model_id
    known = [row for row, reference in enumerate(references) if reference.get("abnormal") is not None]
    bias = length_bias(
        table[known, 0],
        np.array([references[row]["abnormal"] for row in known], dtype=float),
        [len(texts[row].split()) for row in known],
    )
    return {
        "model": {"name": identity.name, "version": identity.version, "sha256": identity.weights_sha256},
        "reports": len(rows),
        "flagged_unusable": len(rows) - len(usable),
        "mean_auc": round(mean_auc(results), 4),
        "keyword_mean_auc": round(mean_auc(baseline), 4),
        "length_bias_among_normals": None if np.isnan(bias) else round(bias, 3),
        "labels": as_json(results),
        "keyword": {
            label: {k: row[k] for k in ("auc", "auc_low", "auc_high")} for label, row in as_json(baseline).items()
        },
    }
