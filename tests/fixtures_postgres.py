"""A private PostgreSQL: ``from fixtures_postgres import postgres_url`` in a test file marked ``needs("postgres")``.

``postgres_server`` gives the server itself, which a test may stop and start.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import take_port


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def _user() -> list[str]:
    """PostgreSQL refuses root: run it as its own user, or as nobody."""
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    return ["runuser", "-u", "postgres" if "postgres" in names else "nobody", "--"]


@dataclass(frozen=True)
class PostgresServer:
    """A cluster in a folder of its own, listening on a loopback port."""

    programs: Path
    folder: Path
    port: int

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the cluster's owner."""
        done = subprocess.run(
            [*_user(), str(self.programs / program), *arguments],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"

    def start(self) -> None:
        """Start and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", str(self.folder / "cluster"), "-o", options, "-l", log, "-w", "-t", "60", "start")

    def stop(self) -> None:
        """Stop at once; clients lose their connections."""
        self.run("pg_ctl", "-D", str(self.folder / "cluster"), "-m", "immediate", "-w", "stop")

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL."""
        return f"postgresql+psycopg://falx@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test session; skips when it is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: run `make packages-test`")
    folder = Path(tempfile.mkdtemp(prefix="falx-postgres-"))
    if os.geteuid() == 0:
        owner = _user()[2]
        shutil.chown(folder, owner)
    server = PostgresServer(programs, folder, take_port())
    try:
        server.run("initdb", "-D", str(folder / "cluster"), "-U", "falx", "-A", "trust", "-E", "UTF8", "--no-sync")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database, dropped after the test."""
    name = f"falx_{os.urandom(6).hex()}"
    where = ("-h", "127.0.0.1", "-p", str(postgres_server.port), "-U", "falx")
    postgres_server.run("createdb", *where, name)
    yield postgres_server.url(name)
    postgres_server.run("dropdb", *where, "--force", name)
