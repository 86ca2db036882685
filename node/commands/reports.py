"""Subcommands of the report archive: `falx relabel`, `falx watch`; `falx labels ...` is in label_sets.py."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.commands.label_sets import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    archives_called,
    labels_app,
    settings_of,
)

if TYPE_CHECKING:
    from node.archive.relabel import Run
    from node.config import ArchiveSettings, Settings
    from node.watch import Month, Share


def relabel(
    archive: Annotated[str, typer.Argument(help="the archive's name in config.yaml; default: all")] = "",
    now: Annotated[bool, typer.Option("--now", help="do not wait for the archive's cron time")] = False,
    engine: Annotated[str, typer.Option(help="local or ray; default: the archive's option, else local")] = "",
    no_map: Annotated[bool, typer.Option("--no-map", help="do not draw the embedding map anew")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = "",
) -> None:
    """Label what is new, changed or labelled by another model. A run that was killed goes on where it stopped."""
    from node.archive.cron import trigger_of
    from node.output import console, write_json
    from node.store.database import open_database, reading
    from node.store.labels_runs import last_started_at

    settings = settings_of(config)
    chosen = archives_called(settings, archive)
    out = console(json)
    labels = open_database(settings.storage, "labels")
    if not now:
        from datetime import datetime

        for one in chosen:
            with reading(labels) as connection:
                last = last_started_at(connection, one.name)
            following = trigger_of(one.cron, f"archives.{one.name}.cron").get_next_fire_time(
                None, datetime.now().astimezone()
            )
            out.print(
                f"{one.name}: last run {last or 'never'}, next {following} while `falx serve` runs; --now runs it now"
            )
        return
    runs = [_relabel_one(settings, one, labels, engine, not no_map, json) for one in chosen]
    if json:
        write_json([_run_as_dict(run) for run in runs], json)


def _relabel_one(
    settings: Settings, archive: ArchiveSettings, labels: Any, engine: str, with_map: bool, json: str
) -> Run:
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from node.archive.job import relabel_archive
    from node.output import console
    from node.report_retrieval import retriever
    from node.service import stop_on_signals
    from node.store.database import open_database
    from node.store.labels_values import Counts

    out = console(json)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[rate]}"), console=out) as bar:
        task = bar.add_task(archive.name, total=None, rate="")

        def show(counts: Counts, _ended: int) -> None:
            elapsed = bar.tasks[task].elapsed or 0.0
            rate = f"{counts.labelled} labelled, {counts.labelled / elapsed:.0f}/s" if elapsed else ""
            bar.update(task, completed=counts.read, rate=rate)

        run = relabel_archive(
            settings,
            archive,
            labels,
            open_database(settings.storage, "ledger"),
            engine=engine,
            progress=show,
            stop=stop_on_signals(),
            retrieve=retriever(settings),
            with_map=with_map,
        )
    counts = run.counts
    out.print(
        f"{archive.name}: label set {run.set_id}, {counts.read} read: {counts.new} new, {counts.changed} changed, "
        f"{counts.remodelled} by another model, {counts.unchanged} unchanged, {counts.duplicates} duplicates, "
        f"{counts.superseded} superseded, {counts.flagged} flagged; {counts.gone} no longer in the archive",
        highlight=False,
    )
    out.print(
        f"model {run.model.name} {run.model.version}, trained on synthetic reports unless it is your own. "
        "RESEARCH USE ONLY"
    )
    return run


def _run_as_dict(run: Run) -> dict[str, Any]:
    return {
        "archive": run.archive,
        "label_set": run.set_id,
        "model": asdict(run.model),
        "counts": run.counts.as_dict(),
        "seconds": run.seconds,
    }


def watch(
    model: Annotated[str, typer.Argument(help="ct_haemorrhage or mr_abnormality; default: both")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = "",
) -> None:
    """Compare the image models' answers with the labels of later reports, month by month: a sign of drift."""
    from node.output import console, write_json
    from node.store.database import open_database, reading
    from node.watch import LABEL_OF
    from node.watch import watch as compare

    storage = settings_of(config).storage
    with reading(open_database(storage, "labels")) as labels, reading(open_database(storage, "ledger")) as ledger:
        months = [month for name in ([model] if model else LABEL_OF) for month in compare(labels, ledger, name)]
    if json:
        write_json([asdict(month) for month in months], json)
    out = console(json)
    for one in months:
        out.print(_month_in_words(one), highlight=False)
    if not months:
        out.print("no analysed study yet")
    out.print(
        "The reference is what falx reads in the reports, no truth of its own. Models are trained on synthetic heads "
        "and reports unless they are your own. RESEARCH USE ONLY"
    )


def _month_in_words(month: Month) -> str:
    def words(name: str, share: Share) -> str:
        if share.value is None or share.low is None or share.high is None:
            return f"{name} -"
        return f"{name} {share.value:.1%} ({share.low:.1%} to {share.high:.1%}, n {share.n})"

    kappa = "" if month.kappa is None else f", kappa {month.kappa:.2f}"
    return (
        f"{month.model} {month.month}: {month.studies} studies with a report, {month.without_report} without; "
        f"{words('PPV', month.ppv)}, {words('sensitivity', month.sensitivity)}, "
        f"{words('specificity', month.specificity)}{kappa}"
    )


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.command()(relabel)
    app.command()(watch)
    app.add_typer(labels_app, name="labels")
