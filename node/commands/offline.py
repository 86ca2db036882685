"""Subcommands without a running node: infer and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.demo import PacsKind

JsonOption = Annotated[str, typer.Option("--json", help="write JSON to this file; - is standard output")]


def infer(
    folder: Annotated[Path, typer.Argument(help="DICOM files, any names, any depth")],
    out: Annotated[Path, typer.Option(help="result objects go here, one folder a series")],
    json: JsonOption = "",
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="models and series rules; default: shipped")
    ] = None,
) -> None:
    """Analyse a folder: files in, SR, heatmap and key object files out. No network."""
    from node import log
    from node.catalog import scan
    from node.config import Settings, load
    from node.model_folders import model_folder
    from node.offline import SeriesAnswer, infer_folder
    from node.output import console, progress, write_json
    from node.worker import load_engine, model_note

    settings = load(config) if config else Settings()
    log.set_up(settings.log, "infer")
    out.mkdir(parents=True, exist_ok=True)
    text = console(json)
    models = settings.models.enabled
    folders = {purpose: model_folder(settings, purpose) for purpose in models}
    engine = load_engine(settings, folders)
    notes = {purpose: model_note(where) for purpose, where in folders.items()}
    with progress() as bar:
        reading = bar.add_task("reading headers", total=None)
        catalog = scan(folder, lambda _: bar.advance(reading))
        analysing = bar.add_task("series", total=len(catalog.series))

        def show(answer: SeriesAnswer) -> None:
            bar.advance(analysing)
            main = answer.findings[0] if answer.findings else None
            number = f"{main.label} {main.probability:.3f}" if main and main.probability is not None else ""
            why = f"{answer.reason.code}: {answer.reason.text}" if answer.reason else ""
            text.print(
                f"{answer.state:13} {answer.modality:3} {answer.series_instance_uid}  {number} {why}", highlight=False
            )

        answers = infer_folder(catalog, out, engine, models, notes, show)
    for left in catalog.left_out:
        text.print(f"left out      {left.path}: {left.reason.text}", highlight=False)
    text.print("RESEARCH USE ONLY. Shipped models were trained on synthetic heads.")
    if json:
        left_out = [
            {"path": str(left.path), "code": left.reason.code, "text": left.reason.text} for left in catalog.left_out
        ]
        write_json({"series": [answer.to_json() for answer in answers], "left_out": left_out}, json)


def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="a DICOM folder to send; default: three synthetic studies")
    ] = None,
    json: JsonOption = "",
    work: Annotated[Path, typer.Option(help="where the demo keeps everything")] = Path("demo-data"),
    pacs: Annotated[PacsKind, typer.Option(help="auto: Orthanc when it is installed")] = PacsKind.AUTO,
) -> None:
    """Start falx and a test PACS, send studies, wait until every result is confirmed, show them."""
    from rich.table import Table

    from node.demo import run_demo
    from node.output import console, write_json

    out = console(json)
    document = run_demo(work.resolve(), folder, pacs, lambda text: out.print(f"falx demo: {text} ...", highlight=False))
    table = Table("study", "finding", "probability", "threshold", "present", "state", "seconds", "objects")
    for study in document["studies"]:
        present = {True: "yes", False: "no", None: "undetermined"}[study["present"]]
        objects = "\n".join(f"{o['kind']} {o['state']} ({o['confirmed_by'] or o['error']})" for o in study["objects"])
        number = "" if study["probability"] is None else f"{study['probability']:.3f}"
        threshold = "" if study["threshold"] is None else f"{study['threshold']:.3f}"
        state = study["state"] if not study["reason"] else f"{study['state']}: {study['reason']}"
        table.add_row(
            study["name"], study["label"] or "", number, threshold, present, state, str(study["seconds"]), objects
        )
    out.print(table)
    out.print("RESEARCH USE ONLY. The models were trained on synthetic heads; the studies are synthetic.")
    out.print(f"look: {document['look']}\nheatmaps: {document['previews']}", highlight=False, soft_wrap=True)
    if json:
        write_json({"pacs": document["pacs"], "studies": document["studies"]}, json)
    if any(o["state"] != "confirmed" for study in document["studies"] for o in study["objects"]):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.command()(infer)
    app.command()(demo)
