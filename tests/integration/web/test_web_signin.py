"""Signing in, roles, CSRF, headers and health, over real HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.config import parse
from node.errors import Misconfigured
from node.store.accounts import Role, add_user
from node.store.database import open_database
from node.web.server import check_bind
from node.web.signin import local_path

PASSWORD = "correct horse battery"


@pytest.fixture
def client(served: Any) -> Any:
    with httpx.Client(base_url=served.url, headers={"Accept": "text/html"}) as browser:
        yield browser


def sign_in(client: httpx.Client, name: str = "ann", password: str = PASSWORD) -> httpx.Response:
    return client.post("/signin", data={"name": name, "password": password})


def test_outside_address_needs_a_user_first(tmp_path: Path) -> None:
    outside = parse({"storage": {"folder": str(tmp_path)}, "web": {"host": "0.0.0.0"}})
    check_bind(parse({"storage": {"folder": str(tmp_path)}}))
    with pytest.raises(Misconfigured, match="falx user add"):
        check_bind(outside)
    add_user(open_database(outside.storage, "accounts"), "root", PASSWORD, Role.ADMIN)
    check_bind(outside)


def test_cookie_is_http_only_and_same_site(client: httpx.Client) -> None:
    cookie = sign_in(client).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_wrong_password_is_refused_and_then_braked(client: httpx.Client) -> None:
    answers = [sign_in(client, password="not the password").status_code for _ in range(6)]
    assert answers == [401] * 5 + [429]
    assert sign_in(client).status_code == 429


def test_pages_send_strangers_to_sign_in(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/signin?next=/"
    assert client.get("/", headers={"Accept": "application/json"}).status_code == 401


def test_write_without_csrf_token_or_from_another_site_is_refused(client: httpx.Client) -> None:
    sign_in(client)
    assert client.post("/signout", data={"csrf_token": "wrong"}).status_code == 403
    assert client.post("/signout", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post("/signout", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    token = re.search(r'name="csrf-token" content="([^"]+)"', client.get("/").text)
    assert token is not None
    assert client.post("/signout", data={"csrf_token": token[1]}).status_code == 303
    assert client.get("/").status_code == 303


def test_answers_forbid_inline_scripts_framing_and_caching(client: httpx.Client) -> None:
    headers = client.get("/signin").headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe-inline" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"


def test_health_and_metrics_need_no_session_and_hold_no_uid(client: httpx.Client) -> None:
    assert client.get("/healthz").text == "ok"
    ready = client.get("/readyz")
    assert ready.status_code == 200, ready.text
    metrics = client.get("/metrics").text
    assert "falx_oldest_waiting_task_seconds 0.0" in metrics
    assert not re.search(r"\d+\.\d+\.\d+\.\d+\.\d+", metrics)


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb"])
def test_sign_in_does_not_lead_to_another_site(target: str) -> None:
    assert local_path(target) == "/"


def test_sign_in_page(browse: Callable[..., Any], keep_pictures: Callable[..., None]) -> None:
    window = browse()
    window.goto("/")
    keep_pictures(window, "signin")
