"""The desk at the size the issue asks for: ten thousand slices, five raters; every submission followed by a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert

from node.config import StorageSettings
from node.store import rankings
from node.store.database import now, open_database, reading
from node.store.rankings import Arrangement
from node.store.rankings_tables import batches
from node.web.ranking_desk import RankingDesk

NUMBER = 10_000
RATERS = ("ann", "bob", "cay", "dan", "eve")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A project of ten thousand slices with two thousand batches already submitted."""
    engine = open_database(StorageSettings(folder=tmp_path), "rankings")
    project = {"name": "big", "lowest": "low", "highest": "high", "classes": [], "batch_size": 8, "repeat_share": 0.1}
    rule = {"min_views": 3, "min_raters": 2, "max_error": 0.5}
    blank = {"project_id": 1, "rows": 1, "columns": 1, "aspect": 1.0, "window_centre": 0.0, "window_width": 1.0}
    named = {"path": "none", "source_sop_instance_uid": "1.2", "source_group": "g", "unit": ""}
    rng = np.random.default_rng(0)
    at = now()
    done: list[dict[str, Any]] = []
    for number in range(2000):
        items = sorted(int(item) for item in rng.choice(NUMBER, 8, replace=False))
        done.append(
            {
                "project_id": 1,
                "rater": RATERS[number % 5],
                "mode": "rank",
                "state": "submitted",
                "items": items,
                "arrangement": {"order": items, "ties": [], "artefacts": [], "answer": None, "history": []},
                "seconds": 14.0,
                "created_at": at,
                "updated_at": at,
                "submitted_at": at,
            }
        )
    with engine.begin() as connection:
        rankings.add_project(connection, project | rule, at)
        rankings.add_slices(connection, [blank | named | {"item": item} for item in range(NUMBER)])
        connection.execute(insert(batches), done)
    return engine


def test_every_submission_is_followed_by_a_batch_of_eight(engine: Engine) -> None:
    desk = RankingDesk(engine)
    with reading(engine) as connection:
        project = rankings.project_named(connection, "big")
    desk.standing(project)  # read and fitted once, when the first rater opens the page
    for turn in range(10):
        rater = RATERS[turn % 5]
        batch = desk.batch_for(project, rater, "rank")
        assert batch is not None
        assert len(set(batch["items"])) == 8
        with engine.begin() as connection:
            order = Arrangement(order=tuple(sorted(batch["items"])))
            saved = rankings.save(connection, batch["batch_id"], rater, order, now())
            rankings.close_batch(connection, saved, rankings.SUBMITTED, now())


def test_two_windows_of_one_rater_share_a_batch(engine: Engine) -> None:
    desk = RankingDesk(engine)
    with reading(engine) as connection:
        project = rankings.project_named(connection, "big")
    first, second = (desk.batch_for(project, "ann", "rank") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first["batch_id"] == second["batch_id"]
    other = desk.batch_for(project, "bob", "rank")
    assert other is not None
    assert other["batch_id"] != first["batch_id"]


def test_a_batch_taken_back_is_forgotten_and_counts_again_when_submitted(engine: Engine) -> None:
    desk = RankingDesk(engine)
    with reading(engine) as connection:
        project = rankings.project_named(connection, "big")
    before = desk.standing(project).views.sum()
    batch = desk.batch_for(project, "ann", "rank")
    assert batch is not None
    order = Arrangement(order=tuple(sorted(batch["items"])))
    with engine.begin() as connection:
        saved = rankings.save(connection, batch["batch_id"], "ann", order, now())
        rankings.close_batch(connection, saved, rankings.SUBMITTED, now())
    assert desk.standing(project).views.sum() == before + 8
    with engine.begin() as connection:
        rankings.reopen_last(connection, 1, "ann", "rank", now())
    assert desk.standing(project).views.sum() == before
    with engine.begin() as connection:
        saved = rankings.save(connection, batch["batch_id"], "ann", order, now())
        rankings.close_batch(connection, saved, rankings.SUBMITTED, now())
    assert desk.standing(project).views.sum() == before + 8
