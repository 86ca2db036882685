"""Signing in through an OpenID Connect provider: a small one in this file that signs real tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from node.config import parse
from node.errors import Misconfigured
from node.store.accounts import Role, add_user, list_users
from node.store.database import open_database
from node.web.app import create_app
from node.web.server import run_web

CLIENT, SECRET = "falx", "the client secret"


class Provider(ThreadingHTTPServer):
    """Authorization code flow with PKCE; what it claims of the user can be changed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.signing_key = self.key
        self.claims: dict[str, Any] = {"sub": "u-1", "email": "ada@example.org", "email_verified": True}
        self.codes: dict[str, dict[str, str]] = {}


class Answers(BaseHTTPRequestHandler):
    """The provider's four addresses."""

    server: Provider

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        provider = self.server
        if url.path == "/.well-known/openid-configuration":
            names = ("authorization_endpoint", "authorize"), ("token_endpoint", "token"), ("jwks_uri", "jwks")
            document = {"issuer": provider.issuer, "id_token_signing_alg_values_supported": ["RS256"]}
            return self._json(document | {name: f"{provider.issuer}/{path}" for name, path in names})
        if url.path == "/jwks":
            return self._json({"keys": [provider.key.as_dict(private=False)]})
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        assert asked["code_challenge_method"] == "S256"
        provider.codes["code-1"] = asked
        self.send_response(302)
        self.send_header(
            "Location", asked["redirect_uri"] + "?" + urlencode({"code": "code-1", "state": asked["state"]})
        )
        self.end_headers()
        return None

    def do_POST(self) -> None:
        provider = self.server
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        asked = provider.codes.pop(sent["code"][0])
        proof = (
            base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"][0].encode()).digest()).rstrip(b"=").decode()
        )
        basic = base64.b64encode(f"{CLIENT}:{SECRET.replace(' ', '+')}".encode()).decode()
        plain = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        assert proof == asked["code_challenge"]
        assert self.headers["Authorization"] in {f"Basic {basic}", f"Basic {plain}"}
        at = int(time.time())
        claims = {"iss": provider.issuer, "aud": CLIENT, "iat": at, "exp": at + 300, "nonce": asked["nonce"]}
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims | provider.claims, provider.signing_key)
        return self._json({"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": token})

    def _json(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(
    provider: Provider, tmp_path: Path, free_port: Callable[[], int], wait_for: Callable[..., object]
) -> Iterator[httpx.Client]:
    (tmp_path / "secret").write_text(SECRET + "\n")
    port = free_port()
    web = {
        "port": port,
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT,
        "oidc_client_secret_file": str(tmp_path / "secret"),
    }
    settings = parse({"storage": {"folder": str(tmp_path / "falx"), "min_free_mb": 0}, "web": web})
    stop = threading.Event()
    thread = threading.Thread(target=run_web, args=(settings, stop), daemon=True)
    thread.start()
    accounts = open_database(settings.storage, "accounts")
    add_user(accounts, "grace@example.org", "", Role.ANNOTATOR)
    add_user(accounts, "local@example.org", "correct horse battery", Role.ADMIN)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Accept": "text/html"}) as browser:

        def answers() -> bool:
            try:
                return browser.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, 60, "the pages answering")
        yield browser
    stop.set()
    thread.join(20)
    assert len(list_users(accounts)) == 2, "signing in from outside makes no local user"


def sign_in(client: httpx.Client) -> httpx.Response:
    return client.get("/oidc/start", follow_redirects=True)


def test_role_comes_from_the_provider(provider: Provider, client: httpx.Client) -> None:
    assert "/oidc/start" in client.get("/signin").text
    provider.claims["falx_role"] = "annotator"
    page = sign_in(client)
    assert page.status_code == 200
    assert "ada@example.org" in page.text
    assert "<small>annotator</small>" in page.text


def test_role_of_a_local_user_without_password(provider: Provider, client: httpx.Client) -> None:
    provider.claims["email"] = "grace@example.org"
    assert "<small>annotator</small>" in sign_in(client).text


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "stranger@example.org"},
        {"email": "grace@example.org", "email_verified": False},
        {"email": "local@example.org"},
        {"falx_role": "root"},
    ],
)
def test_who_has_no_role_gets_none(provider: Provider, client: httpx.Client, claims: dict[str, Any]) -> None:
    provider.claims |= claims
    assert sign_in(client).status_code == 403
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("claims", [{"aud": "another"}, {"iss": "http://evil.example"}, {"exp": 5}, {"nonce": "old"}])
def test_token_that_is_not_for_us_is_refused(provider: Provider, client: httpx.Client, claims: dict[str, Any]) -> None:
    provider.claims |= {"falx_role": "admin"} | claims
    assert sign_in(client).status_code == 401
    assert client.get("/").status_code == 303


def test_token_signed_by_somebody_else_is_refused(provider: Provider, client: httpx.Client) -> None:
    provider.claims["falx_role"] = "admin"
    provider.signing_key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
    assert sign_in(client).status_code == 401


def test_answer_without_our_state_is_refused(client: httpx.Client) -> None:
    assert client.get("/oidc/callback?code=code-1&state=made-up").status_code == 401


def test_half_a_configuration_stops_the_start(tmp_path: Path) -> None:
    settings = parse({"storage": {"folder": str(tmp_path)}, "web": {"oidc_issuer": "http://127.0.0.1:1"}})
    with pytest.raises(Misconfigured, match="oidc_client_id"):
        create_app(settings)
