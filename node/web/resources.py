"""What every page needs: the settings, the databases, the templates. Made once by ``create_app``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from fastapi.templating import Jinja2Templates
from sqlalchemy import Engine
from starlette.responses import HTMLResponse

from node import __version__
from node.config import Settings
from node.store.accounts import Session
from node.store.database import open_database
from node.web.pixels import PixelCache
from node.web.ranking_desk import RankingDesk
from node.web.wording import FILTERS
from node.web.worklist_order import WorklistSnapshot

HERE = Path(__file__).parent
THEMES = ("light", "dark")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The open databases and the rest that routes share."""

    settings: Settings
    accounts: Engine
    intake: Engine
    ledger: Engine
    labels: Engine
    rankings: Engine
    templates: Jinja2Templates
    worklist: WorklistSnapshot
    pixels: PixelCache
    desk: RankingDesk


def open_resources(settings: Settings) -> Resources:
    """Open what the pages read and write."""
    templates = Jinja2Templates(directory=HERE / "templates")
    templates.env.filters.update(FILTERS)
    ledger = open_database(settings.storage, "ledger")
    rankings = open_database(settings.storage, "rankings")
    return Resources(
        settings=settings,
        accounts=open_database(settings.storage, "accounts"),
        intake=open_database(settings.storage, "intake"),
        ledger=ledger,
        labels=open_database(settings.storage, "labels"),
        rankings=rankings,
        templates=templates,
        worklist=WorklistSnapshot(ledger),
        pixels=PixelCache(),
        desk=RankingDesk(rankings),
    )


def resources(request: Request) -> Resources:
    """The resources of the application that answers ``request``."""
    return cast(Resources, request.app.state.resources)


Shared = Annotated[Resources, Depends(resources)]


def page(
    request: Request, template: str, session: Session | None, *, status: int = 200, **context: Any
) -> HTMLResponse:
    """Render a template; every page gets the session, the theme and the version."""
    theme = request.cookies.get("falx_theme", "")
    shared = resources(request)
    values = {
        "session": session,
        "theme": theme if theme in THEMES else "",
        "version": __version__,
        "sso": bool(shared.settings.web.oidc_issuer),
        **context,
    }
    return shared.templates.TemplateResponse(request, template, values, status_code=status)
