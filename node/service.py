"""`falx serve`: starts the processes, keeps them running, drains them on SIGTERM. The one place that knows everybody.

    supervisor ── reception   Storage SCP; the only writer of the intake
               ├─ worker      models warm; answers tasks (one process a GPU or CPU share)
               └─ service     completion, delivery, commitment, purge: of several, one at a time (ADR 51);
                              relabelling, pages: each

The processes share the spool and the databases, nothing else, so each may be killed and started again on its own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from node import log
from node.backup import node_lock
from node.config import Settings
from node.errors import FalxError, Misconfigured
from node.store import leases, ledger
from node.store.database import NAMES, open_database

DRAIN_S = 60.0
SERVICE_LEASE = "service"
LEASE, RENEW_S, LOOK_S = timedelta(seconds=60), 10.0, 1.0
Part = Callable[[Settings, threading.Event], None]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM or SIGINT sets."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


def stop_with_parent(stop: threading.Event) -> None:
    """Set ``stop`` when the supervisor has died, so that no process stays behind it."""
    parent = os.getppid()

    def watch() -> None:
        while not stop.wait(1.0):
            if os.getppid() != parent:
                stop.set()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


# ---------------------------------------------------------------------------------------------- the supervisor
@dataclass(slots=True)
class Child:
    """One supervised process."""

    role: str
    number: int
    process: subprocess.Popen[bytes] | None = None
    pause_s: float = FIRST_PAUSE_S
    started: float = 0.0
    start_after: float = 0.0
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.role}-{self.number}"


def supervise(settings: Settings, config: Path, stop: threading.Event) -> None:
    """Run all processes until ``stop``; a process that ends is started again, later each time it ends at once."""
    with node_lock(settings.storage):
        prepare(settings)
        _supervise(settings, config, stop)


def _supervise(settings: Settings, config: Path, stop: threading.Event) -> None:
    engine = open_database(settings.storage, "ledger")
    children = [
        Child("reception", 0),
        Child("service", 0),
        *(Child("worker", n) for n in range(settings.models.workers)),
    ]
    try:
        while not stop.is_set():
            for child in children:
                _tend(child, config, lambda name: _free_claims(engine, name))
            stop.wait(0.2)
    finally:
        _drain(children)
        engine.dispose()


def prepare(settings: Settings) -> None:
    """Make the folders and bring every database up to date, once, before any process needs them."""
    folder = settings.storage.folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Misconfigured(f"storage.folder {folder}: {error.strerror}; make it writable for this user") from None
    if not os.access(folder, os.W_OK):
        raise Misconfigured(f"storage.folder {folder} is not writable for this user")
    for name in NAMES:
        open_database(settings.storage, name).dispose()


def _free_claims(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        ledger.release_claims(connection, worker_name(name))


def worker_name(name: str) -> str:
    """How a worker signs its claims: host and place, so that its successor may free them."""
    return f"{socket.gethostname()[:40]}/{name}"


def _tend(child: Child, config: Path, freed: Callable[[str], None]) -> None:
    running = child.process
    if running is not None and running.poll() is None:
        return
    if running is not None:
        if running.returncode == Misconfigured.exit_code:  # starting again would not help: a person must mend it
            raise Misconfigured(f"{child.name} cannot work with this configuration; its own message is above")
        lived = time.monotonic() - child.started
        child.pause_s = FIRST_PAUSE_S if lived > LONGEST_PAUSE_S else min(child.pause_s * 2, LONGEST_PAUSE_S)
        child.start_after = time.monotonic() + child.pause_s
        child.process = None
        log.get().error("process_ended", child=child.name, status=running.returncode, again_in_s=child.pause_s)
        if child.role == "worker":
            freed(child.name)
    if time.monotonic() < child.start_after:
        return
    command = [
        sys.executable,
        "-m",
        "node.cli",
        "serve",
        "-c",
        str(config),
        "--role",
        child.role,
        "--number",
        str(child.number),
    ]
    child.process = subprocess.Popen(command)
    child.started = time.monotonic()
    log.get().info("process_started", child=child.name, pid=child.process.pid)


def _drain(children: list[Child]) -> None:
    """Ask every process to finish what it holds; kill what does not within the time."""
    running = [c.process for c in children if c.process is not None and c.process.poll() is None]
    for process in running:
        process.terminate()
    end = time.monotonic() + DRAIN_S
    for process in running:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ---------------------------------------------------------------------------------------------- the roles
def run_role(role: str, settings: Settings, number: int, stop: threading.Event) -> None:
    """Run one process's work until ``stop``."""
    roles: dict[str, Callable[[Settings, int, threading.Event], None]] = {
        "reception": _reception,
        "worker": _worker,
        "service": _service,
    }
    if role not in roles:
        raise Misconfigured(f"no role is called {role!r}; there are: all, {', '.join(roles)}")
    prepare(settings)
    roles[role](settings, number, stop)


def _reception(settings: Settings, number: int, stop: threading.Event) -> None:
    from node.dicom_net.storage_scp import run_reception

    run_reception(settings, stop)


def _worker(settings: Settings, number: int, stop: threading.Event) -> None:
    from node.worker import run_worker

    run_worker(settings, worker_name(f"worker-{number}"), stop)


def _service(settings: Settings, number: int, stop: threading.Event) -> None:
    """The threads of the service process; when one fails the process ends, and the supervisor starts it again."""
    from node.archive.schedule import run_scheduler
    from node.assembly import run_assembly
    from node.dicom_net.delivery import run_delivery
    from node.dicom_net.query import series_instance_count
    from node.purge import run_purge
    from node.report_retrieval import retriever
    from node.web.server import run_web

    def assembly(settings: Settings, stop: threading.Event) -> None:
        run_assembly(settings, stop, partial(series_instance_count, calling_ae=settings.reception.ae_title))

    def relabelling(settings: Settings, stop: threading.Event) -> None:
        run_scheduler(settings, stop, retriever(settings))

    def alone(settings: Settings, stop: threading.Event) -> None:
        ledger_engine = open_database(settings.storage, "ledger")

        def keep_lease(_settings: Settings, stop: threading.Event) -> None:
            _keep_lease(ledger_engine, stop)

        if _wait_for_lease(ledger_engine, stop):
            try:
                _run_parts([assembly, run_delivery, run_purge, keep_lease], settings, stop)
            finally:
                leases.release(ledger_engine, SERVICE_LEASE)

    _run_parts([alone, relabelling, run_web], settings, stop)


def _wait_for_lease(engine: Engine, stop: threading.Event) -> bool:
    """Wait until no other service process is at work; False when ``stop`` came first."""
    waits = False
    while not leases.acquire(engine, SERVICE_LEASE, LEASE):
        if not waits:
            log.get().warning("service_standby", why="another service process is at work; this one takes over from it")
        waits = True
        if stop.wait(LOOK_S):
            return False
    log.get().info("service_active")
    return True


def _keep_lease(engine: Engine, stop: threading.Event) -> None:
    while not stop.wait(RENEW_S):
        if not leases.acquire(engine, SERVICE_LEASE, LEASE):
            raise FalxError("another service process took over while this one stood still for a minute")


def _run_parts(parts: Sequence[Part], settings: Settings, stop: threading.Event) -> None:
    """Run each part in a thread until ``stop``, which the first that fails sets; raise FalxError then."""
    failed: list[BaseException] = []

    def guard(part: Part) -> None:
        try:
            part(settings, stop)
        except BaseException as error:
            log.get().error("thread_failed", part=part.__name__, error=type(error).__name__, exc_info=True)
            failed.append(error)
            stop.set()

    threads = [threading.Thread(target=guard, args=(part,), name=part.__name__) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise FalxError(f"the service process ended: {failed[0]}")
