"""Subcommands of the administrator: status, retry, retract, doctor, conformance, backup, restore, purge."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigOption = Annotated[Path, typer.Option("-c", "--config", help="config.yaml")]
JsonOption = Annotated[str, typer.Option("--json", help="write JSON to this file; - is standard output")]
DEFAULT_CONFIG = Path("/etc/falx/config.yaml")


def _settings(config: Path) -> Any:
    from node.config import load

    return load(config)


def status(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = "") -> None:
    """Say what the node holds, and what needs a person; status 1 when something does."""
    from node.output import console, write_json
    from node.status import read_status
    from node.store.database import open_database

    settings = _settings(config)
    found = read_status(settings, open_database(settings.storage, "ledger"), open_database(settings.storage, "intake"))
    if json:
        write_json(asdict(found), json)
    out = console(json)
    for what in ("series", "tasks", "deliveries"):
        states = getattr(found, what)
        out.print(f"{what:11}" + ("  ".join(f"{state} {n}" for state, n in sorted(states.items())) or "none"))
    out.print(f"{'disk':11}{found.free_mb} MB free")
    for row in found.dead:
        out.print(
            f"dead       {row['kind']} {row['sop_instance_uid']} to {row['destination']}: {row['error']}",
            soft_wrap=True,
        )
    for row in found.held:
        out.print(f"held       study {row['study_instance_uid']}: {row['held_reason']}", soft_wrap=True)
    for row in found.failed:
        out.print(
            f"failed     {row['model']} of study {row['study_instance_uid']}: {row['reason_text']}", soft_wrap=True
        )
    if found.quarantined:
        out.print(f"quarantine {found.quarantined} files in {settings.storage.folder / 'quarantine'}")
    if found.refused:
        out.print(
            f"refused    {found.refused} instances were offered, not kept, and have not come since: send them again"
        )
    if found.needs_attention:
        raise typer.Exit(1)


def retry(
    study: Annotated[str, typer.Argument(help="Study Instance UID; default: all")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Queue dead deliveries anew, and give failed tasks a new version."""
    from node.store import ledger, outbox
    from node.store.database import now, open_database

    settings = _settings(config)
    engine = open_database(settings.storage, "ledger")
    with engine.begin() as connection:
        deliveries = outbox.retry(connection, study or None, now())
        tasks = ledger.retry_failed(connection, study or None, now())
        ledger.record(connection, "retry", study, at=now(), actor=getpass.getuser())
    typer.echo(f"{deliveries} deliveries and {tasks} tasks are queued again")


def retract(
    study: Annotated[str, typer.Argument(help="Study Instance UID")],
    reason: Annotated[str, typer.Option(help="why, without patient data")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Withdraw a study's results from the PACS."""
    from node.retraction import retract as withdraw
    from node.store.database import open_database

    settings = _settings(config)
    done = withdraw(settings, open_database(settings.storage, "ledger"), study, reason, getpass.getuser())
    typer.echo(f"{done.objects} objects withdrawn; rejection note to: {', '.join(done.notified) or 'nobody'}")
    if done.not_notified:
        typer.echo(f"these take no rejection notes, delete the objects there by hand: {', '.join(done.not_notified)}")


def doctor(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = "") -> None:
    """Examine configuration, ports, destinations, disk, models, GPU and clock; status 1 when something is wrong."""
    from node.doctor import examine
    from node.output import console, write_json

    diagnoses = examine(_settings(config))
    if json:
        write_json([asdict(diagnosis) for diagnosis in diagnoses], json)
    out = console(json)
    for one in diagnoses:
        out.print(f"{'ok   ' if one.ok else 'FAULT'} {one.what}: {one.found}", highlight=False, soft_wrap=True)
        if not one.ok:
            out.print(f"      -> {one.remedy}", highlight=False, soft_wrap=True)
    if not all(one.ok for one in diagnoses):
        raise typer.Exit(1)


def conformance(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print the DICOM conformance statement of the running configuration (Markdown)."""
    from node.conformance import statement

    typer.echo(statement(_settings(config)))


def backup(target: Annotated[Path, typer.Argument(help="FILE.tar.gz")], config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Save databases, unconfirmed results, label files, received reports and deployed models; the node may run."""
    from node.backup import back_up

    settings = _settings(config)
    content = back_up(settings, target)
    typer.echo(
        f"{target}: databases {', '.join(content.databases) or 'none'}, {content.objects} unconfirmed objects, "
        f"{content.files} files of {', '.join(content.folders)}"
    )
    if settings.storage.database:
        typer.echo("the databases are in PostgreSQL: save them with pg_dump")


def restore(source: Annotated[Path, typer.Argument(help="FILE.tar.gz")], config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Bring a backup back; the node must be stopped. What it replaces is kept in backups/."""
    from node.backup import restore as bring_back

    content = bring_back(_settings(config), source)
    typer.echo(
        f"restored {', '.join(content.databases) or 'no database'}, {content.objects} objects, {content.files} files "
        f"of {content.made_at}"
    )


def purge(
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list")] = False,
    json: JsonOption = "",
) -> None:
    """Delete received images and old objects that retention lets go."""
    from node.output import console, write_json
    from node.purge import purge as delete
    from node.store.database import open_database

    storage = _settings(config).storage
    done = delete(storage, open_database(storage, "ledger"), open_database(storage, "intake"), dry_run=dry_run)
    if json:
        write_json([asdict(one) for one in done], json)
    out = console(json)
    for one in done:
        out.print(f"{one.study_instance_uid}: {one.instances} instances, {one.objects} objects ({one.why})")
    out.print(f"{len(done)} studies {'would be' if dry_run else 'are'} purged")


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    for command in (status, retry, retract, doctor, conformance, backup, restore, purge):
        app.command()(command)
