"""Subcommands: cohort."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.command("cohort")(cohort)


def cohort(
    modality: Annotated[str, typer.Argument(help="ct or mr")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; must be empty or absent.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of studies.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same cohort.")] = 1,
    prevalence: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of positive studies.")] = 0.5,
    scanner: Annotated[str, typer.Option(help="Scanner that renders the heads: A, B or mixed.")] = "mixed",
    processes: Annotated[int, typer.Option(min=0, help="Draw on so many cores; 0: on all. Same files.")] = 0,
    json_path: Annotated[str, typer.Option("--json", help="Summary as JSON to a file, - for standard output.")] = "",
) -> None:
    """Write synthetic head studies as DICOM, with labels per study and per slice, masks and truth."""
    from node.output import console, progress, write_json

    if modality not in ("ct", "mr"):
        raise typer.BadParameter(f"{modality!r} is neither ct nor mr", param_hint="modality")
    if scanner not in ("A", "B", "mixed"):
        raise typer.BadParameter(f"{scanner!r} is none of A, B, mixed", param_hint="--scanner")
    if out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} is not empty; name a new folder", param_hint="--out")
    from inference.training import cohort_ct, cohort_mr

    write_cohort = cohort_ct.write_cohort if modality == "ct" else cohort_mr.write_cohort
    with progress() as bar:
        task = bar.add_task(f"{n} synthetic {modality.upper()} studies", total=n)
        labels = write_cohort(
            n,
            seed,
            out,
            prevalence=prevalence,
            scanner=scanner,
            processes=processes or len(os.sched_getaffinity(0)),
            progress=lambda done, _: bar.update(task, completed=done),
        )
    console(json_path).print(f"{n} studies in {out}, labels in {labels}. Synthetic heads; research use only.")
    if json_path:
        write_json({"modality": modality, "n": n, "seed": seed, "folder": str(out), "labels": str(labels)}, json_path)
