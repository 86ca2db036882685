"""Who is asking and whether the request may be answered: sessions, roles, CSRF, and the headers of every answer.

No inline script or style is allowed (CSP), so that a hostile DICOM header shown on a page stays text.
Annotations are evaluated here (no ``from __future__``): FastAPI must see the closures' dependencies.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from starlette.responses import PlainTextResponse, Response

from node.store.accounts import Role, Session, find_session
from node.web.resources import resources

SESSION_COOKIE = "falx_session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
Next = Callable[[Request], Awaitable[Response]]


async def guard(request: Request, call_next: Next) -> Response:
    """Refuse writes that another site started, and set the headers of every answer."""
    if request.method not in SAFE_METHODS and not _same_origin(request):
        return PlainTextResponse("refused: the request came from another site", status_code=403)
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if not request.url.path.startswith("/static/"):
        response.headers.setdefault("Cache-Control", "no-store")  # patient names stay out of the browser's cache
    if resources(request).settings.web.https_only_cookies:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response


def current_session(request: Request) -> Session | None:
    """The session of the request's cookie, or None."""
    secret = request.cookies.get(SESSION_COOKIE)
    return find_session(resources(request).accounts, secret) if secret else None


def signed_in(needed: Role) -> Callable[[Request, Session | None], Session]:
    """A dependency: the session, which must include role ``needed``; 401 or 403 otherwise."""

    def check(request: Request, session: Annotated[Session | None, Depends(current_session)]) -> Session:
        if session is None:
            raise HTTPException(401, "Sign in first.")
        if not session.role.may(needed):
            raise HTTPException(403, f"This needs the role {needed.value}; you are {session.role.value}.")
        return session

    return check


def acting(needed: Role) -> Callable[[Request, Session], Awaitable[Session]]:
    """A dependency for writes: ``signed_in``, and the session's CSRF token in a header or a form field."""

    async def check(request: Request, session: Annotated[Session, Depends(signed_in(needed))]) -> Session:
        token = request.headers.get("X-CSRF-Token")
        if token is None and request.headers.get("Content-Type", "").startswith(
            ("application/x-www-form-urlencoded", "multipart/form-data")
        ):
            token = str((await request.form()).get("csrf_token", ""))
        if not hmac.compare_digest((token or "").encode(), session.csrf_token.encode()):
            raise HTTPException(403, "The page is out of date. Reload it and try again.")
        return session

    return check


Viewer = Annotated[Session, Depends(signed_in(Role.VIEWER))]
Annotator = Annotated[Session, Depends(signed_in(Role.ANNOTATOR))]
Admin = Annotated[Session, Depends(signed_in(Role.ADMIN))]
ActingViewer = Annotated[Session, Depends(acting(Role.VIEWER))]
ActingAnnotator = Annotated[Session, Depends(acting(Role.ANNOTATOR))]
ActingAdmin = Annotated[Session, Depends(acting(Role.ADMIN))]


def _same_origin(request: Request) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("Host")
