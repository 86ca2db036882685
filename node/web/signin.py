"""Signing in and out with a local password."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from node.errors import Rejected
from node.store.accounts import Role, close_session, open_session, verify
from node.web.resources import Shared, page
from node.web.security import SESSION_COOKIE, ActingViewer, current_session

router = APIRouter()


@router.get("/signin")
def signin_page(request: Request, next: str = "/") -> Response:
    """Show the form, or go on when somebody is signed in."""
    if current_session(request) is not None:
        return RedirectResponse(local_path(next), status_code=303)
    return page(request, "signin.html", None, next=local_path(next), problem="")


@router.post("/signin")
def sign_in(
    request: Request,
    shared: Shared,
    name: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=1000)] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Check the password and start a session; 429 after too many failures."""
    address = request.client.host if request.client else ""
    try:
        user = verify(shared.accounts, name.strip(), password, address)
    except Rejected as refusal:
        return page(request, "signin.html", None, status=429, next=local_path(next), problem=refusal.text)
    if user is None:
        problem = "That name and password do not belong together."
        return page(request, "signin.html", None, status=401, next=local_path(next), problem=problem)
    return begin(request, shared, user.name, user.role, local_path(next))


@router.post("/signout")
def sign_out(request: Request, shared: Shared, session: ActingViewer) -> Response:
    """End the session."""
    close_session(shared.accounts, request.cookies.get(SESSION_COOKIE, ""))
    response = RedirectResponse("/signin", status_code=303)
    response.delete_cookie(SESSION_COOKIE)
    return response


def begin(request: Request, shared: Shared, name: str, role: Role, target: str) -> Response:
    """Start a session, hand its cookie to the browser and go to ``target``."""
    web = shared.settings.web
    secret, _ = open_session(shared.accounts, name, role, web.session_hours)
    response = RedirectResponse(target, status_code=303)
    response.set_cookie(
        SESSION_COOKIE,
        secret,
        max_age=int(web.session_hours * 3600),
        httponly=True,
        secure=web.https_only_cookies or request.url.scheme == "https",
        samesite="lax",  # strict would lose the session on the way back from the OpenID provider
    )
    return response


def local_path(target: str) -> str:
    """``target`` when it is a path of this host, else ``/`` (an open redirect would help phishing)."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if plain and "\\" not in target else "/"
