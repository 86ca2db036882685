"""Leases in the ledger: one holder among several hosts and processes may do a thing at a time.

A lease runs out unless it is renewed. On its own host a holder whose process is gone is recognised at once, so that
work killed in the middle goes on at restart without waiting for the lease to run out.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import psutil
from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from node.store.database import now
from node.store.ledger_tables import leases


def this_process() -> str:
    """A holder's name: host, process and when it began (process numbers come again)."""
    began = int(psutil.Process().create_time())
    return f"{socket.gethostname()[:32]}:{os.getpid()}:{began}"


def acquire(ledger: Engine, name: str, duration: timedelta) -> bool:
    """Take or renew lease ``name`` for this process; False when another one holds it."""
    me = this_process()
    with ledger.begin() as connection:
        row = connection.execute(select(leases).where(leases.c.name == name).with_for_update()).one_or_none()
        if row is not None:
            if row.holder != me and row.until > now() and not _is_dead(row.holder):
                return False
            connection.execute(update(leases).where(leases.c.name == name).values(holder=me, until=now() + duration))
            return True
    try:
        with ledger.begin() as connection:
            connection.execute(insert(leases).values(name=name, holder=me, until=now() + duration))
    except IntegrityError:  # another process was first
        return False
    return True


def release(ledger: Engine, name: str) -> None:
    """Give a lease of this process back."""
    with ledger.begin() as connection:
        connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == this_process()))


def _is_dead(holder: str) -> bool:
    """Whether the holder was a process of this host that no longer runs."""
    host, number, began = holder.rsplit(":", maxsplit=2)
    if host != socket.gethostname()[:32]:
        return False
    try:
        return int(psutil.Process(int(number)).create_time()) != int(began)
    except psutil.NoSuchProcess:
        return True
