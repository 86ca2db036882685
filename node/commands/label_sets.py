"""Subcommands `falx labels ...`: what the label store holds, corrections, export, diff."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from node.config import ArchiveSettings, Settings
    from node.store.labels_diff import Change, Side

ConfigOption = Annotated[Path, typer.Option("-c", "--config", help="config.yaml")]
JsonOption = Annotated[str, typer.Option("--json", help="write JSON to this file; - is standard output")]
ArchiveArgument = Annotated[str, typer.Argument(help="the archive's name in config.yaml")]
DEFAULT_CONFIG = Path("/etc/falx/config.yaml")

labels_app = typer.Typer(help="Label sets of the report archives.", no_args_is_help=True)


def settings_of(config: Path) -> Settings:
    """Read config.yaml and set up the log."""
    from node import log
    from node.config import load

    settings = load(config)
    log.set_up(settings.log, "labels")
    return settings


def archives_called(settings: Settings, name: str) -> list[ArchiveSettings]:
    """The archives of a name, all for an empty one; raise Misconfigured when there is none."""
    from node.errors import Misconfigured

    chosen = [archive for archive in settings.archives if name in ("", archive.name)]
    if not chosen:
        names = ", ".join(archive.name for archive in settings.archives) or "none"
        raise Misconfigured(f"config.yaml has no archive called {name!r}; it has: {names}")
    return chosen


@labels_app.command("runs")
def runs(
    archive: Annotated[str, typer.Argument(help="default: all")] = "",
    flagged: Annotated[int, typer.Option(help="list what this label set could not label")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="how many")] = 20,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = "",
) -> None:
    """List the runs and the label sets they made, newest first."""
    from node.output import console, write_json
    from node.store import labels as store
    from node.store.database import open_database, reading

    out = console(json)
    with reading(open_database(settings_of(config).storage, "labels")) as connection:
        if flagged:
            rows = [
                dict(zip(("position", "code", "text"), row, strict=True))
                for row in store.flagged_of(connection, flagged, limit)
            ]
            for row in rows:
                out.print(f"{row['code']}: {row['position']}: {row['text']}", highlight=False, markup=False)
        else:
            sets = store.label_sets_of(connection, archive, limit)
            rows = [asdict(one) | {"counts": one.counts.as_dict()} for one in sets]
            out.print(_table_of_runs(sets))
    if json:
        write_json(rows, json)


def _table_of_runs(sets: list[Any]) -> Any:
    from rich.table import Table

    table = Table(
        "set", "archive", "state", "started", "model", "read", "labelled", "unchanged", "flagged", "gone", "error"
    )
    for one in sets:
        counts = one.counts
        numbers = (counts.read, counts.labelled, counts.unchanged, counts.flagged, counts.gone)
        model = f"{one.model.name} {one.model.version} {one.model.weights_sha256[:8]}"
        table.add_row(
            str(one.set_id),
            one.archive,
            one.state,
            f"{one.started_at:%Y-%m-%d %H:%M}",
            model,
            *map(str, numbers),
            one.error,
        )
    return table


@labels_app.command("diff")
def diff(
    first: Annotated[int, typer.Argument(help="the older label set")],
    second: Annotated[int, typer.Argument(help="the newer one")],
    sentences: Annotated[
        bool, typer.Option("--sentences", help="with the sentences that decided (patient data)")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = "",
) -> None:
    """List what changed between two label sets, and why: text, model, or a person's correction."""
    from collections import Counter
    from contextlib import nullcontext

    from node.output import console, json_array
    from node.store.database import open_database, reading
    from node.store.labels_diff import diff as changes_between

    settings = settings_of(config)
    out = console(json)
    why: Counter[str] = Counter()
    with (
        reading(open_database(settings.storage, "labels")) as connection,
        json_array(json) if json else nullcontext() as append,
    ):
        for change in changes_between(connection, settings.storage.folder, first, second):
            why[change.why] += 1
            if append is not None:
                append(_change_as_dict(change, sentences))
            else:
                out.print(_change_in_words(change, sentences), highlight=False, markup=False)
    out.print(", ".join(f"{n} by {reason}" for reason, n in why.most_common()) or "nothing changed")


def _change_as_dict(change: Change, sentences: bool) -> dict[str, Any]:
    row = asdict(change)
    if not sentences:
        for side in (row["before"], row["after"]):
            if side is not None:
                del side["sentences"]
    return row


def _change_in_words(change: Change, sentences: bool) -> str:
    def side(one: Side | None) -> str:
        if one is None:
            return "-"
        value = {1: "present", 0: "absent", None: "undecidable"}[one.value]
        return value if one.probability is None else f"{value} (p {one.probability:.2f})"

    text = f"{change.report_id} {change.label}: {side(change.before)} -> {side(change.after)}, {change.why}"
    text += f" by {change.by}" if change.by else ""
    if change.overridden:
        text += f"; a person's {change.kept} stands"
    for name, one in (("before", change.before), ("after", change.after)) if sentences else ():
        for sentence in one.sentences if one is not None else ():
            text += f"\n    {name}: {sentence}"
    return text


@labels_app.command("export")
def export(
    archive: ArchiveArgument,
    out: Annotated[Path, typer.Option("--out", help="label file: .csv or .parquet")],
    label_set: Annotated[int, typer.Option("--set", help="as of this label set; default: now")] = 0,
    received: Annotated[bool, typer.Option("--received", help="only of studies that falx received")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = "",
) -> None:
    """Write the label file that `falx train` and `falx evaluate` read."""
    from node.output import console, write_json
    from node.store.database import open_database, reading
    from node.store.labels_export import export as export_labels

    settings = settings_of(config)
    with (
        reading(open_database(settings.storage, "labels")) as labels,
        reading(open_database(settings.storage, "ledger")) as ledger,
    ):
        done = export_labels(
            labels, ledger, settings.storage.folder, archive, out, set_id=label_set or None, received_only=received
        )
    if json:
        write_json(asdict(done), json)
    console(json).print(
        f"{out}: {done.rows} rows, {done.joined} of studies that falx received; left out: {done.without_exam} reports "
        f"without an examination, {done.without_label} undecidable, {done.ambiguous_accession} whose accession number "
        f"several patients have, {done.not_received} not received; {done.studies_without_report} studies lack one",
        highlight=False,
    )


@labels_app.command("correct")
def correct(
    archive: ArchiveArgument,
    report: Annotated[str, typer.Argument(help="report id")],
    values: Annotated[list[str], typer.Argument(help="label=1, label=0, or label= for undecidable")],
    detail: Annotated[str, typer.Option(help="why, without patient data")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Correct labels of a report; corrections override every model and are kept until undone."""
    from inference.labels import canonical
    from node.errors import Rejected
    from node.store.database import open_database
    from node.store.labels_corrections import correct as correct_labels

    given: dict[str, int | None] = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not sign or text not in ("", "0", "1"):
            raise Rejected("bad_value", f"{value!r}: write label=1, label=0, or label= for undecidable")
        given[canonical(name) or name] = int(text) if text else None
    settings = settings_of(config)
    with open_database(settings.storage, "labels").begin() as connection:
        group = correct_labels(
            connection,
            settings.storage.folder,
            archive=archive,
            report_ids=[report],
            values=given,
            by=getpass.getuser(),
            detail=detail,
        )
    typer.echo(f"corrected; take it back with: falx labels undo {group}")


@labels_app.command("undo")
def undo(
    group: Annotated[str, typer.Argument(help="what `falx labels correct` or the labelling page named")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Take corrections back."""
    from node.store.database import open_database
    from node.store.labels_corrections import undo as undo_corrections

    with open_database(settings_of(config).storage, "labels").begin() as connection:
        typer.echo(f"{undo_corrections(connection, group, getpass.getuser())} corrections undone")


@labels_app.command("map")
def draw(archive: ArchiveArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Draw the embedding map of an archive's newest label set anew, for the labelling page."""
    from node.archive.job import draw_map
    from node.errors import Rejected
    from node.store.database import open_database, reading
    from node.store.labels import label_sets_of

    settings = settings_of(config)
    (chosen,) = archives_called(settings, archive)
    with reading(open_database(settings.storage, "labels")) as connection:
        sets = label_sets_of(connection, archive, 1)
    if not sets:
        raise Rejected("no_labels", f"archive {archive} has no label set yet: falx relabel {archive} --now")
    typer.echo(f"{draw_map(settings, chosen, sets[0].set_id)} reports on the map")
