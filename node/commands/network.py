"""Subcommands: `falx send`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.errors import Misconfigured, Transient

if TYPE_CHECKING:
    from node.dicom_net.scu import Peer
    from node.dicom_net.sending import SendReport

_ADDRESS = re.compile(r"(?P<ae>[^@]{1,16})@(?P<host>[^:@]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.command("send")(send)


def send(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files (any names), or one file.", exists=True)],
    to: Annotated[str, typer.Option(help="Where to: AE@host:port.")] = "",
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="Send to the falx of this configuration.")
    ] = None,
    calling: Annotated[str, typer.Option(help="Our AE title.")] = "FALX_SEND",
    json_file: Annotated[str, typer.Option("--json", help="Write the answers as JSON; - is standard output.")] = "",
) -> None:
    """Send DICOM files by C-STORE as they are stored; exit status 1 when one was not taken."""
    from rich.console import Console
    from rich.progress import Progress

    from node.dicom_net.sending import send_folder

    peer = _peer(to, config)
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"to {peer}", total=None)
            report = send_folder(
                folder,
                peer.ae_title,
                peer.host,
                peer.port,
                calling_ae=calling,
                tls=peer.tls,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except Transient as error:
        console.print(f"falx: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    _tell(report, console)
    if json_file:
        text = json.dumps(_document(report), indent=2)
        if json_file == "-":
            sys.stdout.write(text + "\n")
        else:
            Path(json_file).write_text(text + "\n")
    if report.refused:
        raise typer.Exit(1)


def _peer(to: str, config: Path | None) -> Peer:
    from node.config import load
    from node.dicom_net.scu import Peer

    if bool(to) == bool(config):
        raise Misconfigured("say where to send: either --to AE@host:port or -c config.yaml")
    if config is not None:
        settings = load(config)
        reception = settings.reception
        host = "127.0.0.1" if reception.host in ("0.0.0.0", "::", "") else reception.host  # noqa: S104
        return Peer(ae_title=reception.ae_title, host=host, port=reception.port, tls=reception.tls)
    found = _ADDRESS.fullmatch(to)
    if found is None or int(found["port"]) > 65535:
        raise Misconfigured(f"--to {to}: write it as AE@host:port, for example FALX@127.0.0.1:11112")
    return Peer(ae_title=found["ae"], host=found["host"].strip("[]"), port=int(found["port"]))


def _tell(report: SendReport, console: Any) -> None:
    sent = len(report.results) - len(report.refused)
    studies = len(report.studies)
    console.print(f"{sent} of {len(report.results)} objects sent, {studies} {'study' if studies == 1 else 'studies'}")
    for file, result in report.results:
        if result.text:
            console.print(f"  {file.path}: {result.text}", markup=False, soft_wrap=True)
    for path in report.not_dicom:
        console.print(f"  {path}: not a DICOM object, left out", markup=False, soft_wrap=True)


def _document(report: SendReport) -> dict[str, Any]:
    return {
        "studies": report.studies,
        "objects": [
            {
                "path": str(file.path),
                "study_instance_uid": file.study_instance_uid,
                "sop_instance_uid": file.sop_instance_uid,
                "state": result.answer.value,
                "status": result.status,
                "text": result.text,
            }
            for file, result in report.results
        ],
        "not_dicom": [str(path) for path in report.not_dicom],
    }
