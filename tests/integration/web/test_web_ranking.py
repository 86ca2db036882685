"""Two raters order real pixels in Chromium, by mouse and by keyboard; the scale recovers the true order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures_head as heads
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from scipy.stats import kendalltau
from sqlalchemy import select, update

from node.ranking_import import RankingPlan, import_project, read_slice
from node.store import rankings
from node.store.database import reading
from node.store.rankings_tables import batches, projects
from node.web.ranking_desk import standing

SLICES = 24


@pytest.fixture
def project(served: Any, tmp_path: Path) -> Any:
    """A project of one head's slices; returns its database and the true level of every item."""
    files = heads.write_head(tmp_path / "dicom", "1.2.3.4", name="Secret^Name", patient_id="SECRET1", slices=SLICES)
    engine = served.database("rankings")
    plan = RankingPlan(
        name="levels", lowest="neck", highest="vertex", classes=("low", "middle", "high"), repeat_share=0.0
    )
    with engine.begin() as connection:
        import_project(connection, served.settings.storage, plan, files)
    with reading(engine) as connection:
        rows = rankings.slices_of(connection, 1)
    level = {row["item"]: int(row["source_sop_instance_uid"].rsplit(".", 1)[1]) for row in rows}
    return engine, level


def shown(window: Page) -> list[int]:
    """Items of the row, left to right, once the batch is drawn."""
    expect(window.locator(".row .tile").first).to_be_visible()
    return [int(tile.get_attribute("data-item")) for tile in window.locator(".row .tile").all()]


def sort_by_keyboard(window: Page, level: dict[int, int]) -> None:
    order = sorted(shown(window), key=lambda item: level[item])
    for place, item in enumerate(order):
        window.locator(f'.tile[data-item="{item}"]').click()
        window.keyboard.press(str(place + 1))
        expect(window.locator(".row .tile").nth(place)).to_have_attribute("data-item", str(item))


def sort_by_mouse(window: Page, level: dict[int, int]) -> None:
    order = sorted(shown(window), key=lambda item: level[item])
    for place, item in enumerate(order):
        if shown(window)[place] == item:
            continue
        start = window.locator(f'.tile[data-item="{item}"]').bounding_box()
        end = window.locator(".row .tile").nth(place).bounding_box()
        window.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        window.mouse.down()
        window.mouse.move(end["x"] + end["width"] / 2, end["y"] + 20, steps=4)
        window.mouse.up()
        expect(window.locator(".row .tile").nth(place)).to_have_attribute("data-item", str(item))


def submit(window: Page) -> None:
    before = shown(window)
    window.keyboard.press("Enter")
    expect(window.locator("#said")).to_have_text("submitted")
    for _ in range(200):
        if window.locator("#nothing").is_visible() or set(shown(window)) != set(before):
            return
        window.wait_for_timeout(50)


def test_two_raters_recover_the_order(
    served: Any, project: Any, browse: Callable[..., Page], keep_pictures: Callable[..., None]
) -> None:
    engine, level = project
    ann, bob = browse("ann"), browse("bob")
    sent: list[str] = []
    ann.on("response", lambda answer: sent.append(answer.url + str(answer.headers)))
    for window in (ann, bob):
        window.goto("/ranking/levels")
    assert set(shown(ann)) != set(shown(bob)) or shown(ann) != shown(bob), "each rater has a queue of their own"

    sort_by_keyboard(ann, level)
    before = shown(ann)
    keep_pictures(ann, "ranking")
    expect(ann.locator("#saved")).to_have_text("saved")
    ann.reload()
    assert shown(ann) == before, "a reload in mid-batch loses nothing"
    submit(ann)
    sort_by_mouse(bob, level)
    submit(bob)

    turn, windows = 0, (ann, bob)
    while not windows[turn % 2].locator("#nothing").is_visible():
        (sort_by_mouse if turn % 5 == 4 else sort_by_keyboard)(windows[turn % 2], level)
        submit(windows[turn % 2])
        turn += 1
        with reading(engine) as connection:
            state = standing(connection, rankings.project_named(connection, "levels"))
        if (state.views >= 3).all():
            break
        assert turn < 30
    truth = [level[item] for item in range(SLICES)]
    tau = kendalltau(state.scale.scores, truth).statistic
    print(f"tau {tau:.3f} after {len(state.batches)} batches, {state.views.mean():.2f} views a slice")
    assert tau >= 0.95
    assert all(row["seconds"] > 0 for row in state.batches)
    assert {row["rater"] for row in state.batches} == {"ann", "bob"}
    assert not any("SECRET" in text or "1.2.3.4" in text for text in sent)


def test_undo_tie_artefact_skip_and_undo_into_the_last_batch(project: Any, browse: Callable[..., Page]) -> None:
    engine, _ = project
    window = browse("ann", width=1366, height=768)
    window.goto("/ranking/levels")
    first = shown(window)
    window.locator(".row .tile").first.focus()
    window.keyboard.press("Shift+ArrowRight")
    assert shown(window) == [first[1], first[0], *first[2:]]
    window.keyboard.press("t")
    expect(window.locator(".row li.tied")).to_have_count(1)
    window.keyboard.press("x")
    expect(window.locator(".row li.artefact")).to_have_count(1)
    window.keyboard.press("]")
    expect(window.locator("#window")).to_contain_text("W 88")
    expect(window.locator("#saved")).to_have_text("saved")
    window.reload()
    expect(window.locator(".row li.artefact.tied")).to_have_count(1)
    for _ in range(3):
        window.keyboard.press("u")
    expect(window.locator(".row li.artefact")).to_have_count(0)
    expect(window.locator(".row li.tied")).to_have_count(0)
    assert shown(window) == first, "undo works after a reload too"
    window.keyboard.press("Enter")
    expect(window.locator("#said")).to_have_text("submitted")
    window.keyboard.press("s")
    expect(window.locator("#said")).to_have_text("skipped")
    window.keyboard.press("u")
    expect(window.locator("#said")).to_have_text("back in the last batch")
    window.keyboard.press("u")
    for _ in range(100):
        if shown(window) == first:
            break
        window.wait_for_timeout(100)
    assert shown(window) == first
    with reading(engine) as connection:
        assert list(connection.scalars(select(batches.c.state))) == ["open"]


def test_one_at_a_time(project: Any, browse: Callable[..., Page], keep_pictures: Callable[..., None]) -> None:
    engine, _ = project
    window = browse("ann")
    window.goto("/ranking/levels?mode=single")
    expect(window.locator("#progress")).to_contain_text("0 of 24 labels")
    keep_pictures(window, "ranking-single")
    window.keyboard.press("2")
    expect(window.locator("#progress")).to_contain_text("1 of 24 labels")
    window.get_by_role("button", name="high").click()
    expect(window.locator("#progress")).to_contain_text("2 of 24 labels")
    window.keyboard.press("x")
    expect(window.locator("#progress")).to_contain_text("2 of 23 labels")
    window.keyboard.press("u")
    expect(window.locator("#progress")).to_contain_text("2 of 24 labels")
    with reading(engine) as connection:
        rows = rankings.submitted(connection, 1)
    assert [row["arrangement"]["answer"] for row in rows] == [1, 2]


def rank_all(engine: Any, level: dict[int, int]) -> None:
    """Order everything in the database itself, as two raters would."""
    from node.web.ranking_desk import RankingDesk

    desk = RankingDesk(engine)
    for turn in range(40):
        with reading(engine) as connection:
            project = rankings.project_named(connection, "levels")
        rater = ("ann", "bob")[turn % 2]
        row = desk.batch_for(project, rater, "rank")
        if row is None or (desk.standing(project).views >= 3).all():
            return
        order = tuple(sorted(row["items"], key=lambda item: level[item]))
        with engine.begin() as connection:
            at = row["updated_at"]
            saved = rankings.save(connection, row["batch_id"], rater, rankings.Arrangement(order=order), at)
            rankings.close_batch(connection, saved, rankings.SUBMITTED, at)


def test_cut_points_by_bisection_make_labels(
    served: Any, project: Any, browse: Callable[..., Page], keep_pictures: Callable[..., None]
) -> None:
    engine, level = project
    rank_all(engine, level)
    window = browse("vera")
    window.goto("/ranking")
    expect(window.get_by_text("views of 24 slices")).to_be_visible()
    keep_pictures(window, "ranking-projects")
    for user, cut_levels in (("ann", (8, 16)), ("bob", (9, 16))):
        window = browse(user)
        window.goto("/ranking/levels/cuts")
        for boundary, cut in enumerate(cut_levels):
            bisect(window, level, boundary, cut)
        keep_pictures(window, f"cuts-{user}")
    window.get_by_role("button", name="Store labels").click()
    expect(window.locator("#said")).to_contain_text("label set 1")
    with reading(engine) as connection:
        summary, labels = rankings.newest_label_set(connection, 1)
    classes = {level[row["item"]]: row["class_index"] for row in labels}
    assert [classes[at] for at in (1, 4, 12, 20, 24)] == [0, 0, 1, 2, 2]
    assert {level[row["item"]] for row in labels if row["uncertain"]} >= {9}
    assert summary["summary"]["agreement"]["kappa_cuts"] > 0.8
    assert np.all(np.diff(summary["summary"]["cuts"]) > 0)


def bisect(window: Page, level: dict[int, int], boundary: int, cut: int) -> None:
    question = window.locator("#question")
    window.locator(f'button[data-boundary="{boundary}"]').click()
    for _ in range(12):
        expect(question).to_have_attribute("data-boundary", str(boundary))
        item = question.get_attribute("data-item")
        if not item:
            break
        window.keyboard.press("ArrowLeft" if level[int(item)] <= cut else "ArrowRight")
        expect(question).not_to_have_attribute("data-item", item)
    window.keyboard.press("Enter")
    expect(window.locator(f'button[data-boundary="{boundary}"].set')).to_be_visible()


def test_nothing_of_the_patient_is_kept(served: Any, project: Any) -> None:
    engine, _ = project
    with reading(engine) as connection:
        rows = rankings.slices_of(connection, 1)
        text = json.dumps([dict(row) for row in rows])
    assert "SECRET" not in text
    assert "Secret" not in text
    assert len({row["source_group"] for row in rows}) == 1
    values = read_slice(served.settings.storage, rows[0])
    assert values.dtype == np.int16
    assert values.shape == (96, 96)
    folder = served.settings.storage.folder / "rankings"
    assert all(b"SECRET" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_hidden_repeats_come_and_are_not_told(project: Any) -> None:
    from node.web.ranking_desk import RankingDesk

    engine, level = project
    with engine.begin() as connection:
        connection.execute(update(projects).values(repeat_share=1.0))
    desk = RankingDesk(engine)
    with reading(engine) as connection:
        row = rankings.project_named(connection, "levels")
    for _ in range(6):
        batch = desk.batch_for(row, "ann", "rank")
        order = tuple(sorted(batch["items"], key=lambda item: level[item]))
        with engine.begin() as connection:
            kept = rankings.save(
                connection, batch["batch_id"], "ann", rankings.Arrangement(order=order), batch["updated_at"]
            )
            rankings.close_batch(connection, kept, rankings.SUBMITTED, batch["updated_at"])
    with reading(engine) as connection:
        done = rankings.submitted(connection, 1)
        repeats = [one for one in done if one["repeat_of"] is not None]
        state = standing(connection, row)
    assert repeats
    assert set(repeats[0]["items"]) == set(
        next(one for one in done if one["batch_id"] == repeats[0]["repeat_of"])["items"]
    )
    assert state.views.sum() == 8 * (len(done) - len(repeats)), "a repeat measures agreement, it is no further view"
