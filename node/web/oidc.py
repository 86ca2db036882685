"""Signing in through the hospital's OpenID Connect provider (authorization code with PKCE, by authlib).

The role comes from the provider's claim; without one, from a local user of that name without a password
(``falx user add NAME --sso``). The name is the verified e-mail address or the subject: other claims can be chosen by
the person who signs in.
"""

from __future__ import annotations

import secrets
from typing import Any

import structlog
from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from fastapi import APIRouter, FastAPI, HTTPException, Request
from joserfc.errors import JoseError
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import Response

from node.config import WebSettings
from node.errors import Misconfigured
from node.store.accounts import Role, find_user
from node.web.resources import Shared, page
from node.web.signin import begin

router = APIRouter()
log = structlog.get_logger(__name__)


def install(app: FastAPI, web: WebSettings) -> None:
    """Add the routes when a provider is configured; raise Misconfigured for half a configuration."""
    if not web.oidc_issuer:
        return
    if not web.oidc_client_id or web.oidc_client_secret_file is None:
        raise Misconfigured("web.oidc_issuer needs web.oidc_client_id and web.oidc_client_secret_file")
    try:
        client_secret = web.oidc_client_secret_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Misconfigured(f"web.oidc_client_secret_file: {web.oidc_client_secret_file}: {error.strerror}") from None
    oauth = OAuth()
    oauth.register(
        "provider",
        client_id=web.oidc_client_id,
        client_secret=client_secret,
        server_metadata_url=web.oidc_issuer.rstrip("/") + "/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256"},
    )
    app.state.oidc = oauth.provider
    # holds state, nonce and verifier between leaving and coming back; its key need not outlive the process
    app.add_middleware(
        SessionMiddleware,
        secret_key=secrets.token_hex(32),
        session_cookie="falx_oidc",
        max_age=600,
        https_only=web.https_only_cookies,
    )
    app.include_router(router)


@router.get("/oidc/start")
async def start(request: Request) -> Response:
    """Send the browser to the provider."""
    redirect: Response = await request.app.state.oidc.authorize_redirect(request, str(request.url_for("come_back")))
    return redirect


@router.get("/oidc/callback")
async def come_back(request: Request, shared: Shared) -> Response:
    """Take the provider's code, check its signed token, start a session."""
    web = shared.settings.web
    options = {
        "iss": {"essential": True, "value": (await request.app.state.oidc.load_server_metadata())["issuer"]},
        "aud": {"essential": True, "value": web.oidc_client_id},
    }
    try:
        token = await request.app.state.oidc.authorize_access_token(request, claims_options=options)
        claims: dict[str, Any] = token["userinfo"]
    except (OAuthError, JoseError, KeyError) as error:
        log.warning("oidc_refused", error=type(error).__name__)
        return page(
            request, "signin.html", None, status=401, next="/", problem="The sign-in provider's answer was not valid."
        )
    name = str(claims["email"] if claims.get("email_verified") is True else claims["sub"])[:64]
    return begin(request, shared, name, _role(shared, web, claims, name), "/")


def _role(shared: Shared, web: WebSettings, claims: dict[str, Any], name: str) -> Role:
    claimed = claims.get(web.oidc_role_claim)
    known = [Role(value) for value in (claimed if isinstance(claimed, list) else [claimed]) if value in list(Role)]
    if known:
        return max(known, key=list(Role).index)
    user = find_user(shared.accounts, name)
    if user is None or user.has_password:
        raise HTTPException(403, "You are known to the sign-in provider, but nobody has given you a role in falx.")
    return user.role
