"""Serving the pages from a thread of the service process."""

from __future__ import annotations

import ipaddress
import threading

import structlog
import uvicorn

from node.config import Settings
from node.errors import Misconfigured
from node.store.accounts import list_users
from node.store.database import open_database
from node.web.app import create_app

log = structlog.get_logger(__name__)


def check_bind(settings: Settings) -> None:
    """Raise Misconfigured when the pages would be reachable from outside this host before anybody can sign in."""
    if is_loopback(settings.web.host) or list_users(open_database(settings.storage, "accounts")):
        return
    raise Misconfigured(
        f"web.host {settings.web.host} is reachable from outside, and there is no user yet: "
        "add one with `falx user add NAME --role admin`, or set web.host to 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run_web(settings: Settings, stop: threading.Event) -> None:
    """Serve the pages until ``stop`` is set; raise Misconfigured when the address cannot be used."""
    check_bind(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.web.host,
            port=settings.web.port,
            log_config=None,
            access_log=False,  # paths hold UIDs; the audit trail says who did what
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    )
    thread = threading.Thread(target=server.run, name="web", daemon=True)
    thread.start()
    while not stop.wait(0.2):
        if not thread.is_alive():
            raise Misconfigured(
                f"the pages cannot be served at web.host {settings.web.host}, web.port {settings.web.port}: in use?"
            )
    server.should_exit = True
    thread.join(10)
