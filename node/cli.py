"""The command `falx`: puts the subcommands together, and turns falx's errors into a line and an exit status."""

from __future__ import annotations

import importlib
import os
import sys

import typer

from node.errors import FalxError

GROUPS = (
    "serve",
    "offline",
    "network",
    "cohort",
    "training",
    "triage",
    "labelling",
    "reports",
    "ranking",
    "accounts",
    "admin",
)

app = typer.Typer(
    help="falx: deep learning on head CT and MRI, delivered to the PACS. RESEARCH USE ONLY.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for group in GROUPS:
    importlib.import_module(f"node.commands.{group}").register(app)


def main() -> None:
    """Run the command line; exit status 0 done, 1 failed, 2 wrong configuration or arguments."""
    os.umask(0o077)
    try:
        app()
    except FalxError as error:
        print(f"falx: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
