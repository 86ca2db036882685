"""Users, sessions and the brake on guessing, on a real SQLite file."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from typer.testing import CliRunner

from node.cli import app
from node.config import StorageSettings
from node.errors import Rejected
from node.store.accounts import (
    MAX_FAILURES_PER_NAME_AND_ADDRESS,
    Role,
    add_user,
    close_session,
    find_session,
    list_users,
    open_session,
    remove_user,
    set_password,
    verify,
)
from node.store.accounts_tables import failures, sessions, users
from node.store.database import open_database

GOOD = "correct horse battery"


@pytest.fixture
def accounts(tmp_path: Path) -> Engine:
    return open_database(StorageSettings(folder=tmp_path), "accounts")


def test_password_is_stored_as_argon2_and_verified(accounts: Engine) -> None:
    add_user(accounts, "ada", GOOD, Role.ANNOTATOR)
    with accounts.connect() as connection:
        assert connection.execute(select(users.c.password_hash)).scalar_one().startswith("$argon2id$")
    user = verify(accounts, "ada", GOOD, "10.0.0.1")
    assert user is not None
    assert user.role is Role.ANNOTATOR
    assert verify(accounts, "ada", "wrong password", "10.0.0.1") is None
    assert verify(accounts, "nobody", GOOD, "10.0.0.1") is None


@pytest.mark.parametrize(("name", "password", "code"), [("ada", "short", "short_password"), ("a b", GOOD, "bad_name")])
def test_unusable_users_are_refused(accounts: Engine, name: str, password: str, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        add_user(accounts, name, password, Role.VIEWER)
    assert caught.value.code == code
    assert list_users(accounts) == []


def test_guessing_is_braked_and_the_right_password_no_longer_helps(accounts: Engine) -> None:
    add_user(accounts, "ada", GOOD, Role.VIEWER)
    for _ in range(MAX_FAILURES_PER_NAME_AND_ADDRESS):
        assert verify(accounts, "ada", "guess number one", "10.0.0.1") is None
    with pytest.raises(Rejected) as caught:
        verify(accounts, "ada", GOOD, "10.0.0.1")
    assert caught.value.code == "too_many_failures"
    assert verify(accounts, "ada", GOOD, "10.0.0.2") is not None, "another desk is not locked out"
    with accounts.connect() as connection:
        assert "ada" not in str(connection.execute(select(failures)).all())


def test_user_without_password_cannot_sign_in_with_any(accounts: Engine) -> None:
    add_user(accounts, "sso", "", Role.VIEWER)
    assert verify(accounts, "sso", "", "10.0.0.1") is None
    assert verify(accounts, "sso", GOOD, "10.0.0.1") is None


def test_sessions_end_by_sign_out_expiry_password_change_and_removal(accounts: Engine) -> None:
    add_user(accounts, "ada", GOOD, Role.ADMIN)
    secret, session = open_session(accounts, "ada", Role.ADMIN, 1.0)
    assert find_session(accounts, secret) == session
    with accounts.connect() as connection:
        assert secret not in str(connection.execute(select(sessions)).all())
    close_session(accounts, secret)
    assert find_session(accounts, secret) is None
    expired, _ = open_session(accounts, "ada", Role.ADMIN, -0.01)
    assert find_session(accounts, expired) is None
    changed, _ = open_session(accounts, "ada", Role.ADMIN, 1.0)
    set_password(accounts, "ada", GOOD + "!")
    assert find_session(accounts, changed) is None
    removed, _ = open_session(accounts, "ada", Role.ADMIN, 1.0)
    remove_user(accounts, "ada")
    assert find_session(accounts, removed) is None


def test_roles_include_the_lesser_ones() -> None:
    assert Role.ADMIN.may(Role.ANNOTATOR)
    assert not Role.VIEWER.may(Role.ANNOTATOR)


def test_user_commands(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"storage:\n  folder: {tmp_path / 'data'}\n")
    run = CliRunner()
    made = run.invoke(
        app, ["user", "add", "ada", "--role", "annotator", "--password-file", "-", "-c", str(config)], input=GOOD + "\n"
    )
    assert made.exit_code == 0, made.output
    listed = run.invoke(app, ["user", "list", "--json", "-", "-c", str(config)])
    assert '"role": "annotator"' in listed.stdout
    assert run.invoke(app, ["user", "remove", "ada", "-c", str(config)]).exit_code == 0
    assert run.invoke(app, ["user", "list", "-c", str(config)]).stdout == ""
