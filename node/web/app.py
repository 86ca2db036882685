"""The web application: its routes, in the order a reader meets the pages."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from node.config import Settings
from node.errors import Rejected
from node.web import cuts, health, labelling, monitoring, oidc, ranking, signin, study, worklist
from node.web.resources import HERE, open_resources, page
from node.web.security import current_session, guard

PAGES = (health, signin, worklist, study, ranking, cuts, labelling, monitoring)


def create_app(settings: Settings) -> FastAPI:
    """Build the application over the databases of ``settings``; raise Misconfigured when it cannot work."""
    app = FastAPI(title="falx", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.resources = open_resources(settings)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for module in PAGES:
        app.include_router(module.router)
    oidc.install(app, settings.web)
    app.middleware("http")(guard)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(Rejected, _on_rejected)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    return app


def _on_http_error(request: Request, error: Exception) -> Response:
    """A page for people, JSON for scripts; who is not signed in is sent to do so."""
    assert isinstance(error, StarletteHTTPException)
    if "text/html" not in request.headers.get("Accept", ""):
        return JSONResponse({"error": error.detail}, status_code=error.status_code)
    if error.status_code == 401:
        return RedirectResponse(f"/signin?next={quote(request.url.path)}", status_code=303)
    return page(request, "error.html", current_session(request), status=error.status_code, problem=error.detail)


def _on_rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, Rejected)
    return _on_http_error(request, HTTPException(404 if error.code.startswith("unknown") else 400, error.text))


def _on_invalid(request: Request, error: Exception) -> Response:
    """Name the wrong fields, never their values: they may be patient data."""
    assert isinstance(error, RequestValidationError)
    fields = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors())
    return _on_http_error(request, HTTPException(422, f"not usable: {fields}"))
