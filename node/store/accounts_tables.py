"""The tables of the accounts: users, their sessions in the browser, failed sign-ins."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table, Text

from node.store.ledger_tables import UtcTime

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(12), nullable=False),  # Role
    Column("password_hash", Text, nullable=False, default=""),  # argon2id; empty: signs in by OpenID Connect alone
    Column("created_at", UtcTime, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_sha256", String(64), primary_key=True),  # the cookie itself is never stored
    Column("name", String(64), nullable=False, index=True),
    Column("role", String(12), nullable=False),
    Column("csrf_token", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False, index=True),
)

failures = Table(
    "signin_failures",
    metadata,
    Column("failure_id", Integer, primary_key=True),
    Column("name_sha256", String(64), nullable=False, index=True),  # people type passwords into the name field
    Column("address", String(64), nullable=False, index=True),
    Column("at", UtcTime, nullable=False, index=True),
)
