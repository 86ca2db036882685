"""Subcommands: `falx user add | list | passwd | remove`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.store.accounts import Role

if TYPE_CHECKING:
    from sqlalchemy import Engine

user_app = typer.Typer(help="Who may sign in to the pages.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", "-c", help="config.yaml")]
PasswordFile = Annotated[
    Path | None, typer.Option(help="read the password from the first line of this file; - reads standard input")
]


def register(app: typer.Typer) -> None:
    """Add this group's subcommands to ``falx``."""
    app.add_typer(user_app, name="user")


@user_app.command()
def add(
    name: str,
    role: Annotated[Role, typer.Option(help="what the user may do")] = Role.VIEWER,
    password_file: PasswordFile = None,
    sso: Annotated[bool, typer.Option("--sso", help="no password: signs in by OpenID Connect alone")] = False,
    config: Config = Path("config.yaml"),
) -> None:
    """Add a user; asks for the password."""
    from node.store.accounts import add_user

    add_user(_accounts(config), name, "" if sso else _password(password_file), role)
    typer.echo(f"{name} may sign in as {role.value}", err=True)


@user_app.command("list")
def list_(
    json_file: Annotated[str, typer.Option("--json", help="write JSON here; - is standard output")] = "",
    config: Config = Path("config.yaml"),
) -> None:
    """List the users."""
    from node.store.accounts import list_users

    rows = [
        {"name": user.name, "role": user.role.value, "created_at": user.created_at.isoformat()}
        for user in list_users(_accounts(config))
    ]
    if json_file == "-":
        typer.echo(json.dumps(rows))
    elif json_file:
        Path(json_file).write_text(json.dumps(rows), encoding="utf-8")
    else:
        for row in rows:
            typer.echo(f"{row['name']:<24} {row['role']:<10} {row['created_at']}")


@user_app.command()
def passwd(name: str, password_file: PasswordFile = None, config: Config = Path("config.yaml")) -> None:
    """Change a password; ends the user's sessions."""
    from node.store.accounts import set_password

    set_password(_accounts(config), name, _password(password_file))


@user_app.command()
def remove(name: str, config: Config = Path("config.yaml")) -> None:
    """Remove a user; ends the user's sessions."""
    from node.store.accounts import remove_user

    remove_user(_accounts(config), name)


def _accounts(config: Path) -> Engine:
    from node.config import load
    from node.store.database import open_database

    return open_database(load(config).storage, "accounts")


def _password(file: Path | None) -> str:
    if file is None:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    if str(file) == "-":
        return sys.stdin.readline().rstrip("\r\n")
    return (file.read_text(encoding="utf-8").splitlines() or [""])[0]
