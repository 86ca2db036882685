"""Subcommands that label reports with a model, and that train and measure one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.commands.training import evaluate_app, train_app
from node.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.report_bulk import BulkCounts

ModelFolder = Annotated[Path | None, typer.Option("--model", help="Model folder; default: the shipped model.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the summary as JSON; - for standard output.")]


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.command("label-reports")(label_reports)
    train_app.command("reports")(train_reports)
    evaluate_app.command("reports")(evaluate_reports)


def label_reports(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSONL, CSV or Parquet with id, text, modality.")],
    out: Annotated[Path, typer.Option("--out", help="JSONL, one row for each row of IN, in its order.")],
    model: ModelFolder = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Labelling processes, one core each.")] = 2,
    json_file: JsonFile = None,
) -> None:
    """Label a file of head CT and MR reports. RESEARCH USE ONLY; the shipped model was trained on synthetic reports."""
    from inference.report_files import UnreadableFile
    from inference.weights import WrongModel, verify

    try:
        if model is not None:
            verify(model)
        partial = out.with_name(out.name + ".part")
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            counts = _label(source, file.write, model, processes)
        partial.replace(out)
    except (UnreadableFile, WrongModel) as error:
        raise Misconfigured(str(error)) from error
    _report(
        {
            "rows": counts.rows,
            "labelled": counts.labelled,
            "declined": counts.declined,
            "unreadable": counts.unreadable,
            "flags": dict(sorted(counts.flags.items())),
            "present": dict(sorted(counts.present.items())),
            "out": str(out),
        },
        json_file,
    )


def _label(source: Path, write: Callable[[bytes], object], model: Path | None, processes: int) -> BulkCounts:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from inference.report_bulk import label_file

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} reports labelled"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=None)
        return label_file(
            source,
            write,
            folder=model,
            processes=processes,
            watch=lambda rows: progress.update(task, completed=rows),
        )


def _report(summary: dict[str, Any], json_file: Path | None) -> None:
    text = json.dumps(summary, indent=2)
    if json_file is None:
        print(text, file=sys.stderr)
    elif str(json_file) == "-":
        print(text)
    else:
        json_file.write_text(text + "\n", encoding="utf-8")


def train_reports(
    labels: Annotated[Path, typer.Option("--labels", help="JSONL, CSV or Parquet: one column a label.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the new model.")],
    reports: Annotated[Path | None, typer.Option("--reports", help="Texts by id, if LABELS holds none.")] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Local Hugging Face checkpoint, e.g. BioBERT or RadBERT.")
    ] = None,
    mlm: Annotated[
        Path | None, typer.Option(help="Unlabelled reports for masked-LM adaptation of the encoder.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Passes over the labelled reports.")] = 4,
    version: Annotated[str, typer.Option(help="Version to write into the model's metadata.")] = "local-1",
    json_file: JsonFile = None,
) -> None:
    """Train a report model on local labels: the shipped network, or an encoder of your own. RESEARCH USE ONLY."""
    from inference.report_files import UnreadableFile
    from inference.training.report_local import read_labelled_reports, tune_compact

    if mlm is not None and encoder is None:
        raise Misconfigured("--mlm adapts an encoder: give --encoder with the checkpoint's folder as well")
    if out.exists() and any(out.iterdir()):
        raise Misconfigured(f"--out {out} is not empty: choose a new folder, models are never overwritten")
    try:
        labelled = read_labelled_reports(labels, reports)
        if encoder is None:
            record = tune_compact(labelled.rows, out, epochs=epochs, version=version)
        else:
            record = _train_encoder(labelled.rows, out, encoder, mlm, epochs, version)
    except (UnreadableFile, ValueError) as error:
        raise Misconfigured(str(error)) from error
    unread = {"unmatched_rows": labelled.unmatched, "ignored_columns": list(labelled.unknown_columns)}
    _report({**record, **unread, "out": str(out)}, json_file)


def _train_encoder(
    rows: list[dict[str, Any]], out: Path, checkpoint: Path, mlm: Path | None, epochs: int, version: str
) -> dict[str, Any]:
    from inference.training.report_encoder_fit import EncoderSettings
    from inference.training.report_local import tune_encoder

    return tune_encoder(
        rows, out, checkpoint=checkpoint, mlm=mlm, settings=EncoderSettings(epochs=epochs), version=version
    )


def evaluate_reports(
    labels: Annotated[Path, typer.Option("--labels", help="Reference labels: JSONL, CSV or Parquet.")],
    reports: Annotated[Path | None, typer.Option("--reports", help="Texts by id, if LABELS holds none.")] = None,
    model: ModelFolder = None,
    json_file: JsonFile = None,
) -> None:
    """Measure a report model against labels: AUC with intervals, decisions, the keyword labeller beside it."""
    from inference.report_files import UnreadableFile
    from inference.training.report_local import measure, read_labelled_reports
    from inference.weights import WrongModel

    try:
        labelled = read_labelled_reports(labels, reports)
        result = measure(labelled.rows, model)
    except (UnreadableFile, WrongModel) as error:
        raise Misconfigured(str(error)) from error
    _report({**result, "unmatched_rows": labelled.unmatched}, json_file)
