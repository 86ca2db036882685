"""Fixtures of the pages: a served application with users, a real Chromium, pictures kept in ``artefacts/``."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import Engine

from node.config import Settings, parse
from node.store.accounts import Role, add_user
from node.store.database import open_database
from node.web.server import run_web

ARTEFACTS = Path(__file__).resolve().parents[3] / "artefacts"
PASSWORD = "correct horse battery"
expect.set_options(timeout=30_000)


class Served:
    """The pages over a folder of their own, in a thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = f"http://127.0.0.1:{settings.web.port}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=run_web, args=(settings, self._stop), daemon=True)

    def database(self, name: str) -> Engine:
        """Open one of the databases the pages use."""
        return open_database(self.settings.storage, name)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture
def served(tmp_path: Path, free_port: Callable[[], int], wait_for: Callable[..., object]) -> Iterator[Served]:
    """A running application with the users vera (viewer), ann and bob (annotators) and root (admin)."""
    folder = tmp_path / "falx"
    settings = parse({"storage": {"folder": str(folder), "min_free_mb": 0}, "web": {"port": free_port()}})
    accounts = open_database(settings.storage, "accounts")
    for name, role in (("vera", "viewer"), ("ann", "annotator"), ("bob", "annotator"), ("root", "admin")):
        add_user(accounts, name, PASSWORD, Role(role))
    service = Served(settings)
    service.start()
    wait_for(service.answers, 60, "the pages answering")
    yield service
    service.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The machine's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Browser, served: Served) -> Iterator[Callable[..., Page]]:
    """Open a window signed in as a user: ``browse("ann", width=1920, scheme="dark")``; script errors fail the test."""
    problems: list[str] = []
    contexts = []

    def open_window(user: str = "", *, width: int = 1920, height: int = 1080, scheme: str = "light") -> Page:
        context = chromium.new_context(
            base_url=served.url, viewport={"width": width, "height": height}, color_scheme=scheme
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        window = context.new_page()
        window.on("pageerror", lambda error: problems.append(f"script: {error}"))
        window.on("console", lambda line: problems.append(line.text) if "Content Security" in line.text else None)
        if user:
            window.goto("/signin")
            window.get_by_label("Name").fill(user)
            window.get_by_label("Password").fill(PASSWORD)
            window.get_by_role("button", name="Sign in").click()
            window.wait_for_url("**/")
        return window

    yield open_window
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def keep_pictures() -> Callable[[Page, str], None]:
    """Keep pictures of a page, light and dark, 1920 and 1366 wide, and hold each against axe-core."""

    def keep(window: Page, name: str) -> None:
        ARTEFACTS.mkdir(exist_ok=True)
        before: Any = window.viewport_size
        for scheme in ("light", "dark"):
            window.emulate_media(color_scheme=scheme)
            for width, height in ((1920, 1080), (1366, 768)):
                window.set_viewport_size({"width": width, "height": height})
                window.screenshot(path=ARTEFACTS / f"{name}-{scheme}-{width}.png")
            assert serious(window) == [], f"{name} in {scheme}"
        window.set_viewport_size(before)

    return keep


def serious(window: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    found = Axe().run(window).response["violations"]
    return [
        f"{item['id']}: {item['help']}: {[node['target'] for node in item['nodes']][:4]}"
        for item in found
        if item["impact"] in {"serious", "critical"}
    ]
