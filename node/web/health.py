"""``/healthz`` (the process lives), ``/readyz`` (it can work), ``/metrics`` (Prometheus); none holds patient data."""

from __future__ import annotations

import os
import shutil

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import PlainTextResponse, Response

from node.store.database import reading
from node.web.metrics import NodeCollector
from node.web.resources import Resources, Shared

router = APIRouter()


@router.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return PlainTextResponse("ok")


@router.get("/readyz")
def readyz(shared: Shared) -> Response:
    """The databases answer and the storage folder can be written; 503 with the failing part otherwise."""
    checks = {**_databases(shared), "storage": _storage(shared)}
    ready = all(value == "ok" for value in checks.values())
    return JSONResponse(checks, status_code=200 if ready else 503)


@router.get("/metrics")
def metrics(shared: Shared) -> Response:
    """Counts and ages from the ledger in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(shared))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _databases(shared: Resources) -> dict[str, str]:
    outcome = {}
    for name in ("accounts", "ledger", "labels", "rankings"):
        try:
            with reading(getattr(shared, name)) as connection:
                connection.execute(text("SELECT 1"))
            outcome[name] = "ok"
        except SQLAlchemyError as error:
            outcome[name] = type(error).__name__
    return outcome


def _storage(shared: Resources) -> str:
    storage = shared.settings.storage
    if not os.access(storage.folder, os.W_OK):
        return "the storage folder cannot be written"
    if shutil.disk_usage(storage.folder).free < storage.min_free_mb * 2**20:
        return "the disk is full"
    return "ok"
