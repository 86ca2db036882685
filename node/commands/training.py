"""Subcommands: `falx train ...`, `falx evaluate ...`, `falx deploy`."""

from __future__ import annotations

import typer

train_app = typer.Typer(help="Train a model on local data.", no_args_is_help=True)
evaluate_app = typer.Typer(help="Evaluate a model against labels.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``; other groups add theirs to ``train_app`` and ``evaluate_app``."""
    app.add_typer(train_app, name="train")
    app.add_typer(evaluate_app, name="evaluate")
