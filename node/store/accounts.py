"""Users, their sessions and the brake on guessing passwords, over the database ``accounts``.

Knows no HTTP. Passwords are argon2id hashes; a session is found by the SHA-256 of the secret in its cookie.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Engine, Row, delete, func, insert, select, update

from node.errors import Rejected
from node.store.accounts_tables import failures, sessions, users
from node.store.database import now, reading

MIN_PASSWORD = 10
FAILURE_WINDOW = timedelta(minutes=15)
MAX_FAILURES_PER_NAME_AND_ADDRESS = 5
MAX_FAILURES_PER_ADDRESS = 30
MAX_FAILURES_PER_NAME = 50
_HASHER = PasswordHasher()
# verified against when the name is unknown, so that the answer takes as long as for a known one
_NOBODY = _HASHER.hash(secrets.token_hex(16))


class Role(StrEnum):
    """What a user may do; each role may do all that the ones before it may."""

    VIEWER = "viewer"  # read the worklist and the studies
    ANNOTATOR = "annotator"  # rank slices, label reports
    ADMIN = "admin"  # retry deliveries, see the audit trail of sign-ins

    def may(self, needed: Role) -> bool:
        """Whether this role includes ``needed``."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A local user."""

    name: str
    role: Role
    created_at: datetime
    has_password: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody signed in at a browser."""

    name: str
    role: Role
    csrf_token: str
    expires_at: datetime


def add_user(engine: Engine, name: str, password: str, role: Role) -> None:
    """Create a user; raise Rejected for a name that is taken or malformed, or a password that is too short.

    An empty password makes a user who signs in by OpenID Connect alone.
    """
    if not re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", name):
        raise Rejected("bad_name", f"user name {name!r}: use 1 to 64 letters, digits, and . _ @ -")
    hashed = _hash(password) if password else ""
    with engine.begin() as connection:
        if connection.execute(select(users.c.name).where(users.c.name == name)).first():
            raise Rejected("name_taken", f"user {name!r} exists; `falx user passwd {name}` changes the password")
        connection.execute(insert(users).values(name=name, role=role.value, password_hash=hashed, created_at=now()))


def list_users(engine: Engine) -> list[User]:
    """All users, by name."""
    with reading(engine) as connection:
        rows = connection.execute(select(users).order_by(users.c.name)).all()
    return [_user(row) for row in rows]


def set_password(engine: Engine, name: str, password: str) -> None:
    """Change a password and end the user's sessions; raise Rejected for an unknown name or a short password."""
    hashed = _hash(password)
    with engine.begin() as connection:
        if not connection.execute(update(users).where(users.c.name == name).values(password_hash=hashed)).rowcount:
            raise Rejected("unknown_user", f"no user is called {name!r}; `falx user list` shows them")
        connection.execute(delete(sessions).where(sessions.c.name == name))


def remove_user(engine: Engine, name: str) -> None:
    """Delete a user and end the sessions; raise Rejected for an unknown name."""
    with engine.begin() as connection:
        if not connection.execute(delete(users).where(users.c.name == name)).rowcount:
            raise Rejected("unknown_user", f"no user is called {name!r}; `falx user list` shows them")
        connection.execute(delete(sessions).where(sessions.c.name == name))


def verify(engine: Engine, name: str, password: str, address: str) -> User | None:
    """The user when the password is right, else None (and the failure is counted).

    Raises
    ------
    Rejected
        code ``too_many_failures`` when the name or the address failed too often in the last quarter of an hour; the
        password is then not looked at.
    """
    _brake(engine, name, address)
    with reading(engine) as connection:
        row = connection.execute(select(users).where(users.c.name == name)).first()
    try:
        _HASHER.verify(row.password_hash if row and row.password_hash else _NOBODY, password)
    except (VerificationError, InvalidHashError):
        row = None
    if row is None or not row.password_hash:
        with engine.begin() as connection:
            connection.execute(insert(failures).values(name_sha256=_sha256(name), address=address, at=now()))
        return None
    return _user(row)


def find_user(engine: Engine, name: str) -> User | None:
    """The user of that name."""
    with reading(engine) as connection:
        row = connection.execute(select(users).where(users.c.name == name)).first()
    return _user(row) if row else None


def open_session(engine: Engine, name: str, role: Role, hours: float) -> tuple[str, Session]:
    """Start a session and return the secret for the cookie with it; old sessions are swept out."""
    secret = secrets.token_urlsafe(32)
    session = Session(
        name=name, role=role, csrf_token=secrets.token_urlsafe(32), expires_at=now() + timedelta(hours=hours)
    )
    with engine.begin() as connection:
        connection.execute(delete(sessions).where(sessions.c.expires_at < now()))
        connection.execute(delete(failures).where(failures.c.at < now() - FAILURE_WINDOW))
        connection.execute(
            insert(sessions).values(
                token_sha256=_sha256(secret),
                name=name,
                role=role.value,
                csrf_token=session.csrf_token,
                created_at=now(),
                expires_at=session.expires_at,
            )
        )
    return secret, session


def find_session(engine: Engine, secret: str) -> Session | None:
    """The session that belongs to a cookie, unless it is over."""
    with reading(engine) as connection:
        row = connection.execute(select(sessions).where(sessions.c.token_sha256 == _sha256(secret))).first()
    if row is None or row.expires_at < now():
        return None
    return Session(name=row.name, role=Role(row.role), csrf_token=row.csrf_token, expires_at=row.expires_at)


def close_session(engine: Engine, secret: str) -> None:
    """End a session."""
    with engine.begin() as connection:
        connection.execute(delete(sessions).where(sessions.c.token_sha256 == _sha256(secret)))


def _user(row: Row[Any]) -> User:
    return User(name=row.name, role=Role(row.role), created_at=row.created_at, has_password=bool(row.password_hash))


def _brake(engine: Engine, name: str, address: str) -> None:
    recent = select(func.count()).where(failures.c.at > now() - FAILURE_WINDOW)
    by_name = recent.where(failures.c.name_sha256 == _sha256(name))
    with reading(engine) as connection:
        counts = (
            (connection.execute(by_name.where(failures.c.address == address)), MAX_FAILURES_PER_NAME_AND_ADDRESS),
            (connection.execute(recent.where(failures.c.address == address)), MAX_FAILURES_PER_ADDRESS),
            (connection.execute(by_name), MAX_FAILURES_PER_NAME),
        )
        if any(result.scalar_one() >= limit for result, limit in counts):
            raise Rejected("too_many_failures", "Too many failed sign-ins. Wait a quarter of an hour.")


def _hash(password: str) -> str:
    if len(password) < MIN_PASSWORD:
        raise Rejected("short_password", f"a password has at least {MIN_PASSWORD} characters")
    return _HASHER.hash(password)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
