"""Subcommands: `falx train slices`, `falx evaluate slices`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from node.commands.training import evaluate_app, train_app
from node.errors import Misconfigured, Rejected

Config = Annotated[Path, typer.Option("--config", "-c", help="config.yaml")]


def register() -> None:
    """Add the two subcommands to ``falx train`` and ``falx evaluate``."""
    train_app.command("slices")(train_slices)
    evaluate_app.command("slices")(evaluate_slices)


def train_slices(
    out: Annotated[Path, typer.Option(help="folder of the new model")],
    project: Annotated[str, typer.Option(help="ranking project whose newest labels are learned")] = "",
    heads: Annotated[int, typer.Option(help="without a project: synthetic heads to draw")] = 48,
    epochs: int = 6,
    seed: int = 0,
    config: Config = Path("config.yaml"),
) -> None:
    """Train a slice-level model on a ranking project's labels, or (no project) the default on synthetic heads."""
    from inference.training import train_slices as training

    if not project:
        training.train_default(out, heads=heads, epochs=epochs, seed=seed, say=_say)
        return
    from inference.training.slice_level_project import train_project
    from node.slice_projects import labelled_slices

    settings = _settings(config)
    record = train_project(
        out, labelled_slices(settings.storage, project), name=project, epochs=epochs, seed=seed, say=_say
    )
    _say(json.dumps(record))


def evaluate_slices(
    labels: Annotated[Path, typer.Option(help="CSV: sop_instance_uid, brain (1/0), border (1/0; left out)")],
    studies: Annotated[Path, typer.Option(help="folder of the DICOM files")],
    model: Annotated[Path | None, typer.Option(help="model folder; default: the shipped one")] = None,
    no_brain: Annotated[Path | None, typer.Option(help="folder of files that hold no brain")] = None,
    json_file: Annotated[str, typer.Option("--json", help="write JSON here; - is standard output")] = "",
) -> None:
    """How many slices are rightly called brain or no brain, series by series."""
    from node.slice_projects import evaluate

    for given in (labels, studies, *((no_brain,) if no_brain else ())):
        if not given.exists():
            raise Misconfigured(f"{given}: no such file or folder")
    result = evaluate(labels, studies, model, no_brain)
    if not result["series"]:
        raise Rejected("no_slices", f"none of the slices of {labels} is in {studies}")
    text = json.dumps(result, indent=1)
    if json_file == "-":
        typer.echo(text)
        return
    if json_file:
        Path(json_file).write_text(text, encoding="utf-8")
    for name, row in result["series"].items():
        _say(f"{name:<28} {row['right']:>4} of {row['slices']:>4} right ({row['share']:.3f})")
    _say(f"all: {result['share']:.4f}, {result['ms_per_slice']:.2f} ms a slice; model {result['model']}")


def _settings(config: Path) -> Any:
    from node.config import load

    return load(config)


def _say(words: str) -> None:
    typer.echo(words, err=True)
