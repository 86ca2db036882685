"""Subcommands: `falx rank new | status | export | simulate`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.commands import slices
from node.errors import Misconfigured, Rejected

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from node.config import Settings

rank_app = typer.Typer(help="Rank slices in batches of eight (Zaman 2023).", no_args_is_help=True)
Config = Annotated[Path, typer.Option("--config", "-c", help="config.yaml")]
Json = Annotated[str, typer.Option("--json", help="write JSON here; - is standard output")]


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.add_typer(rank_app, name="rank")
    slices.register()


@rank_app.command()
def new(
    name: Annotated[str, typer.Option(help="name of the project: small letters, digits, - and _")],
    axis: Annotated[str, typer.Option(help='the two ends in words: "lowest -> highest"')],
    studies: Annotated[Path | None, typer.Option(help="folder of DICOM files; searched through and through")] = None,
    received: Annotated[bool, typer.Option("--received", help="take what falx has received")] = False,
    classes: Annotated[str, typer.Option(help="names of the classes, lowest first, with commas between")] = "",
    limit: Annotated[int, typer.Option(help="take at most so many slices, drawn at random; 0: all")] = 0,
    batch_size: Annotated[int, typer.Option(min=2, max=9)] = 8,
    repeat_share: Annotated[float, typer.Option(min=0, max=0.5, help="share of hidden repeats")] = 0.08,
    config: Config = Path("config.yaml"),
    json_file: Json = "",
) -> None:
    """Make a ranking project: pixels alone are kept, nothing of the patient."""
    from node.ranking_import import RankingPlan, import_project

    lowest, arrow, highest = (part.strip() for part in axis.partition("->"))
    if not (arrow and lowest and highest):
        raise Misconfigured('--axis needs both ends with an arrow between: --axis "neck -> vertex"')
    settings, engine = _open(config)
    plan = RankingPlan(
        name=name,
        lowest=lowest,
        highest=highest,
        classes=tuple(word.strip() for word in classes.split(",") if word.strip()),
        batch_size=batch_size,
        repeat_share=repeat_share,
        limit=limit,
    )
    files = _files(settings, studies, received)
    with engine.begin() as connection:
        made = import_project(connection, settings.storage, plan, files)
    left_out = ", ".join(f"{count} {reason}" for reason, count in made.left_out.items()) or "nothing"
    typer.echo(f"{name}: {made.slices} slices of {made.patients} patients; left out: {left_out}", err=True)
    _write_json(json_file, {"name": name, "slices": made.slices, "patients": made.patients, "left_out": made.left_out})


@rank_app.command()
def status(name: str, config: Config = Path("config.yaml"), json_file: Json = "-") -> None:
    """Progress, hours, raters' weights and agreement of a project, as JSON."""
    from node.store import rankings
    from node.store.database import reading
    from node.web.agreement import agreement
    from node.web.cuts import complete_cuts
    from node.web.ranking_desk import figures, standing

    _, engine = _open(config)
    with reading(engine) as connection:
        project = rankings.project_named(connection, name)
        state = standing(connection, project)
        numbers = figures(project, state, "")
        cuts = complete_cuts(project, rankings.cuts_of(connection, project["project_id"]))
    numbers["rater_weights"] = state.scale.rater_weights
    numbers["agreement"] = agreement(state, cuts, max(1, len(project["classes"])))
    _write_json(json_file, numbers)


@rank_app.command()
def export(
    name: str,
    out: Annotated[Path, typer.Option(help="CSV: one row a slice of the newest label set")],
    config: Config = Path("config.yaml"),
) -> None:
    """Write a project's newest labels, joined to SOP Instance UIDs."""
    from node.store import rankings
    from node.store.database import reading

    _, engine = _open(config)
    with reading(engine) as connection:
        project = rankings.project_named(connection, name)
        found = rankings.newest_label_set(connection, project["project_id"])
        if found is None:
            raise Rejected("no_labels", f"{name} has no label set yet; set cut-points on its page and store them")
        newest, labels = found
        sources = {row["item"]: row for row in rankings.slices_of(connection, project["project_id"])}
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sop_instance_uid", "frame", "score", "error", "class", "uncertain", "label_set"])
        for row in labels:
            source = sources[row["item"]]
            word = project["classes"][row["class_index"]]
            uid, frame = source["source_sop_instance_uid"], source["source_frame"] or ""
            score, error = f"{row['score']:.5f}", f"{row['error']:.5f}"
            writer.writerow([uid, frame, score, error, word, int(row["uncertain"]), newest["set_id"]])
    typer.echo(f"{out}: {len(labels)} slices, label set {newest['set_id']}", err=True)


@rank_app.command()
def simulate(
    json_file: Annotated[str, typer.Option("--json", help="write the result here; - is standard output")],
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    labelled: Annotated[int, typer.Option("--slices", min=200, help="slices to be labelled")] = 3320,
    jobs: Annotated[int, typer.Option(min=1, help="seeds played at the same time")] = 1,
) -> None:
    """Play the reader study: ranking by eights against one at a time, five hours each, on synthetic heads."""
    from inference.training.rank_simulation import simulate as play

    _write_json(json_file, play(seeds=seeds, slices=labelled, jobs=jobs, say=lambda words: typer.echo(words, err=True)))


def _open(config: Path) -> tuple[Settings, Engine]:
    from node.config import load
    from node.store.database import open_database

    settings = load(config)
    return settings, open_database(settings.storage, "rankings")


def _files(settings: Settings, studies: Path | None, received: bool) -> list[Path]:
    if received == (studies is not None):
        raise Misconfigured("give either --studies DIR or --received")
    if studies is not None:
        if not studies.is_dir():
            raise Misconfigured(f"--studies {studies}: no such folder")
        return sorted(path for path in studies.rglob("*") if path.is_file())
    from sqlalchemy import select

    from node.store.database import open_database, reading
    from node.store.ledger_tables import instances, series

    query = select(instances.c.path).join(series, series.c.series_instance_uid == instances.c.series_instance_uid)
    with reading(open_database(settings.storage, "ledger")) as connection:
        paths = connection.scalars(query.where(series.c.for_analysis).order_by(instances.c.path)).all()
    return [settings.storage.folder / path for path in paths]


def _write_json(target: str, document: object) -> None:
    if target == "-":
        typer.echo(json.dumps(document, indent=1))
    elif target:
        Path(target).write_text(json.dumps(document, indent=1), encoding="utf-8")
