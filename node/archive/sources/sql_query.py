"""Reports in a database, read page by page and never written.

Options: ``table`` or ``query``; ``key`` (a unique column to page by; default the column of ``report_id``); ``cursor``
(a column that grows with every change, such as the time of the last change: then a run reads only what is new since
the last one); ``password_file``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnClause,
    Engine,
    Row,
    and_,
    column,
    create_engine,
    event,
    literal,
    literal_column,
    or_,
    quoted_name,
    select,
    text,
)
from sqlalchemy import table as table_named
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from node.archive.sources.columns import Columns
from node.config import ArchiveSettings
from node.errors import Misconfigured, Transient
from node.store.labels_values import Flagged, Part, Report

PAGE_ROWS = 1000
RETRY_S = (1.0, 2.0, 5.0, 10.0, 20.0)


class SqlQuery:
    """One table or query is one part; the position is the last (cursor, key) read."""

    def __init__(self, archive: ArchiveSettings) -> None:
        self.archive = archive
        self.columns = Columns.of(archive)
        self.cursor = str(archive.options.get("cursor", ""))
        self.key = str(archive.options.get("key", "")) or self.columns.fields["report_id"][0]
        self.engine = _engine(archive)
        self._where = f"archives.{archive.name}"

    def check(self) -> None:
        """Raise Misconfigured when the query fails, or the mapping, the key or the cursor names no column of it."""
        rows = self._rows()
        try:
            connection = self.engine.connect()
        except SQLAlchemyError as error:
            raise Misconfigured(f"{self._where}.location: {self._shown}: {_cause(error)}") from None
        with connection:
            try:
                names = list(connection.execute(select(literal_column("*")).select_from(rows).limit(0)).keys())
            except SQLAlchemyError as error:
                raise Misconfigured(f"{self._where}.options: the query cannot run: {_cause(error)}") from None
        self.columns = self.columns.present(names, self.archive.columns)
        for option, name in (("key", self.key), ("cursor", self.cursor)):
            if not name:
                continue
            if name not in names:
                raise Misconfigured(f"{self._where}.options.{option}: no column {name}; there are {', '.join(names)}")
            empty = select(literal(1)).select_from(self._rows()).where(column(name).is_(None)).limit(1)
            with self.engine.connect() as connection:
                if connection.execute(empty).first():
                    raise Misconfigured(f"{self._where}.options.{option}: column {name} is NULL in some rows")

    @property
    def _shown(self) -> str:
        return self.engine.url.render_as_string(hide_password=True)

    def _rows(self) -> Any:
        table, query = self.archive.options.get("table"), self.archive.options.get("query")
        if bool(table) == bool(query):
            raise Misconfigured(f"{self._where}.options: give either table or query")
        if table:
            *schema, name = str(table).split(".")
            return table_named(quoted_name(name, quote=None), schema=schema[0] if schema else None)
        return text(f"({str(query).rstrip().rstrip(';')}) AS falx_reports")

    def parts(self) -> Iterator[Part]:
        """The one part."""
        yield Part(key=str(self.archive.options.get("table") or "query"), incremental=bool(self.cursor))

    def read(self, part: Part, position: str | None) -> Iterator[tuple[str, Report | Flagged]]:
        """Read the rows after ``position``; raise Transient when the database stays away."""
        after = [_decoded(value) for value in json.loads(position)] if position else None
        while True:
            page = self._page(after)
            for row in page:
                cells = dict(row._mapping)
                after = [cells[name] for name in self._order]
                yield (
                    json.dumps([_encoded(value) for value in after]),
                    self.columns.report(cells, f"{part.key}, {self.key} {after[-1]}"),
                )
            if len(page) < PAGE_ROWS:
                return

    @property
    def _order(self) -> list[str]:
        return [self.cursor, self.key] if self.cursor else [self.key]

    def _select(self, after: list[Any] | None) -> Any:
        names = list(dict.fromkeys([*self.columns.names, *self._order]))
        chosen: Any = select(*(column(name) for name in names)).select_from(self._rows())
        order: list[ColumnClause[Any]] = [column(name) for name in self._order]
        if after is not None and len(order) == 2:
            chosen = chosen.where(or_(order[0] > after[0], and_(order[0] == after[0], order[1] > after[1])))
        elif after is not None:
            chosen = chosen.where(order[0] > after[0])
        return chosen.order_by(*order).limit(PAGE_ROWS)

    def _page(self, after: list[Any] | None) -> Sequence[Row[Any]]:
        for wait_s in (*RETRY_S, None):
            try:
                with self.engine.connect() as connection:
                    return connection.execute(self._select(after)).all()
            except DBAPIError as error:
                if wait_s is None or not (error.connection_invalidated or isinstance(error, OperationalError)):
                    raise Transient(
                        f"{self._where}: {self._shown}: {_cause(error)}; the run goes on from here"
                    ) from None
                time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")


def _engine(archive: ArchiveSettings) -> Engine:
    where = f"archives.{archive.name}.location"
    try:
        url = make_url(archive.location)
        if "password_file" in archive.options:
            url = url.set(password=Path(str(archive.options["password_file"])).read_text(encoding="utf-8").strip())
        if url.get_backend_name() == "sqlite":
            path = Path(url.database or "")
            if not path.is_file():
                raise Misconfigured(f"{where}: {path} does not exist")
            return create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
        engine = create_engine(url, pool_pre_ping=True)
    except ArgumentError:
        raise Misconfigured(f"{where}: not a SQLAlchemy URL such as postgresql+psycopg://user@host/name") from None
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise Misconfigured(f"{where}: no driver for this database is installed ({error})") from None
    except OSError as error:
        raise Misconfigured(f"archives.{archive.name}.options.password_file: {error.strerror}") from None
    if url.get_backend_name() in ("postgresql", "mysql", "mariadb"):
        statement = {"postgresql": "SET default_transaction_read_only = on"}.get(
            url.get_backend_name(), "SET SESSION TRANSACTION READ ONLY"
        )

        @event.listens_for(engine, "connect")
        def read_only(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(statement)
            cursor.close()
            connection.commit()

    return engine


def _cause(error: SQLAlchemyError) -> str:
    """The driver's first line: names tables and hosts, holds no row."""
    cause = str(getattr(error, "orig", None) or error).strip()
    return cause.splitlines()[0] if cause else type(error).__name__


def _encoded(cell: object) -> object:
    """A key or cursor value as JSON holds it; ``_decoded`` gives back the type that the database compares with."""
    for kind, name in ((datetime, "datetime"), (date, "date")):
        if isinstance(cell, kind):
            return {name: cell.isoformat()}
    return {"decimal": str(cell)} if isinstance(cell, Decimal) else cell


def _decoded(value: object) -> object:
    if not isinstance(value, dict):
        return value
    ((kind, text_),) = value.items()
    if kind == "decimal":
        return Decimal(text_)
    return datetime.fromisoformat(text_) if kind == "datetime" else date.fromisoformat(text_)
