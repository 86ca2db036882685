"""Subcommand: `falx serve`, the node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    config: Annotated[Path, typer.Option("-c", "--config", help="config.yaml")] = Path("/etc/falx/config.yaml"),
    role: Annotated[str, typer.Option(help="all, reception, worker or service")] = "all",
    number: Annotated[int, typer.Option(help="which of several workers")] = 0,
) -> None:
    """Run the node: receive, analyse, send back. SIGTERM drains."""
    from node import log, service
    from node.config import load

    settings = load(config)
    log.set_up(settings.log, role if role != "worker" else f"worker-{number}")
    stop = service.stop_on_signals()
    if role == "all":
        service.supervise(settings, config, stop)
        return
    service.stop_with_parent(stop)
    service.run_role(role, settings, number, stop)


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.command()(serve)
