"""The labelling page over a real label store: evidence, corrections by keyboard, search, groups, lasso, undo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fixtures_ledger as rows_of
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select, update

from inference.labels import REPORT_LABELS
from inference.report_labels import ReportLabels
from inference.result import ModelId
from node.store import labels_files, labels_parts, labels_runs
from node.store.database import reading
from node.store.labels import reports_of
from node.store.labels_map import MapPoint, write_map
from node.store.labels_tables import corrections, reports
from node.store.labels_values import Batch, LabelledReport, Part, Report
from node.store.ledger_tables import studies, tasks
from node.web.labelling import cut_text

MODEL = ModelId(name="falx-reports", version="1.0.0", weights_sha256="cd" * 32)
BLEED = "There is an acute subdural haematoma \U0001f9e0 on the left."
TEXTS = {
    "r1": f"CT head. {BLEED} No fracture.",
    "r2": "MRI brain. Normal study. No acute infarct.",
    "r3": "MRI brain. Old lacunar infarct. Moderate small vessel change.",
    "r4": "CT head. Generalised atrophy.",
}


@pytest.fixture
def archive(served: Any) -> Any:
    """An archive of four labelled reports with a map."""
    engine, folder = served.database("labels"), served.settings.storage.folder
    with engine.begin() as connection:
        set_id = labels_runs.begin(connection, "ris", MODEL, trigger="test", engine="local", host="here")
        labels_parts.plan(connection, set_id, "ris", [Part(key="a.csv")])
        part = labels_parts.open_parts(connection, set_id)[0].part_id
        labelled = [_labelled(key, text, part) for key, text in TEXTS.items()]
        path = labels_files.write(folder, "ris", set_id, labelled)
        batch = Batch(labelled=labelled)
        for _ in labelled:
            batch.count(part, "new")
        batch.ended[part] = True
        labels_runs.store(connection, set_id, "ris", batch, path)
        labels_runs.finish(connection, set_id, "ris")
        ids = {row.report_id: row.row_id for row in connection.execute(select(reports))}
    corners = {"r1": (0.1, 0.1), "r2": (0.8, 0.8), "r3": (0.9, 0.7), "r4": (0.2, 0.9)}
    write_map(folder, "ris", set_id, [MapPoint(row_id=ids[k], report_id=k, x=x, y=y) for k, (x, y) in corners.items()])
    return engine


def _labelled(key: str, text: str, part: int) -> LabelledReport:
    bleeds = BLEED in text
    found = dict.fromkeys(REPORT_LABELS, 0)
    found |= {"intracranial_haemorrhage": int(bleeds), "abnormal": int("Normal" not in text), "mass": None}
    start = text.find(BLEED)
    return LabelledReport(
        report_id=key,
        report=Report(
            report_id=key, accession_number=f"A-{key}", text=text, modality=text[:2], source_position="a.csv:1"
        ),
        labels=ReportLabels(
            probabilities={name: 0.97 if value else 0.02 for name, value in found.items()},
            labels=found,
            evidence={"intracranial_haemorrhage": ((start, start + len(BLEED)),)} if bleeds else {},
        ),
        part_id=part,
    )


def values(engine: Any, label: str) -> dict[str, int | None]:
    with reading(engine) as connection:
        rows = reports_of(connection, "ris", [row.row_id for row in connection.execute(select(reports))])
    return {row.report_id: row.labels[label] for row in rows}


def test_text_is_cut_at_code_points() -> None:
    parts = cut_text("ab\U0001f9e0cd", {"x": ((2, 4),), "y": ((3, 5),)})
    assert [(part["text"], part["labels"]) for part in parts] == [
        ("ab", []),
        ("\U0001f9e0", ["x"]),
        ("c", ["x", "y"]),
        ("d", ["y"]),
    ]


def test_evidence_corrections_and_undo_by_keyboard(
    archive: Any, browse: Callable[..., Page], keep_pictures: Callable[..., None]
) -> None:
    window = browse("ann")
    window.goto("/labels")
    expect(window.locator("mark")).to_have_text(BLEED)
    keep_pictures(window, "labels")
    third = window.locator('#labels [data-label="mass"] .says')
    expect(third).to_have_text("undecided")
    window.keyboard.press("3")
    expect(third).to_have_text("present")
    assert values(archive, "mass")["r1"] == 1
    window.keyboard.press("u")
    expect(third).to_have_text("undecided")
    window.keyboard.press("a")
    expect(window.locator("#facts")).to_contain_text("report 2 of 4")
    window.keyboard.press("j")
    expect(window.locator("#facts")).to_contain_text("report 3 of 4")
    with reading(archive) as connection:
        made = connection.execute(select(corrections).order_by(corrections.c.correction_id)).all()
    assert {row.made_by for row in made} == {"ann"}
    assert [row.how for row in made[:1]] == ["manual"]
    assert made[0].undone_by == "ann"
    assert {row.how for row in made[1:]} == {"accept"}
    assert len(made) == 1 + len(REPORT_LABELS)


def test_group_labelling_of_a_search(archive: Any, browse: Callable[..., Page]) -> None:
    window = browse("ann", width=1366, height=768)
    window.goto("/labels")
    expect(window.locator("#count")).to_have_text("4 reports")
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    window.keyboard.press("r")
    window.keyboard.press("/")
    window.keyboard.type("lacunar|acute infarct")
    expect(window.locator("#count")).to_have_text("2 reports")
    window.keyboard.press("Enter")
    window.keyboard.press("t")
    expect(window.locator("#ticked")).to_have_text("2 ticked")
    window.locator("#group-label").select_option("acute_stroke")
    window.locator("#group").get_by_role("button", name="present").click()
    expect(window.locator("#said")).to_contain_text("set for 2 reports")
    assert values(archive, "acute_stroke") == {"r1": 0, "r2": 1, "r3": 1, "r4": 0}
    with reading(archive) as connection:
        made = connection.execute(select(corrections)).all()
    assert {(row.how, row.detail) for row in made} == {("regex", "lacunar|acute infarct")}
    window.locator("#undo").click()
    expect(window.locator("#said")).to_have_text("taken back")
    assert set(values(archive, "acute_stroke").values()) == {0}
    assert not any("lacunar" in url for url in asked)


def test_lasso_on_the_map(archive: Any, browse: Callable[..., Page], keep_pictures: Callable[..., None]) -> None:
    window = browse("ann")
    window.goto("/labels")
    expect(window.locator("#count")).to_have_text("4 reports")
    window.keyboard.press("m")
    expect(window.locator("#map-words")).to_contain_text("4 reports")
    box = window.locator("#map").bounding_box()
    window.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    window.mouse.down()
    for x, y in ((0.98, 0.5), (0.98, 0.98), (0.6, 0.98), (0.6, 0.55)):
        window.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=4)
    window.mouse.up()
    expect(window.locator("#ticked")).to_have_text("2 ticked")
    expect(window.locator("#count")).to_have_text("2 reports")
    keep_pictures(window, "labels-map")
    window.locator("#group-label").select_option("atrophy")
    window.locator("#group").get_by_role("button", name="present").click()
    expect(window.locator("#said")).to_contain_text("set for 2 reports")
    assert values(archive, "atrophy") == {"r1": 0, "r2": 1, "r3": 1, "r4": 0}
    with reading(archive) as connection:
        assert set(connection.scalars(select(corrections.c.how))) == {"lasso"}


def test_viewers_see_no_reports(archive: Any, browse: Callable[..., Page]) -> None:
    window = browse("vera")
    window.goto("/labels")
    expect(window.get_by_text("This needs the role annotator")).to_be_visible()


def test_monitoring_holds_the_models_against_the_reports(
    browse: Callable[..., Any], served: Any, archive: Any, keep_pictures: Callable[[Page, str], None]
) -> None:
    rows_of.fill(served.database("ledger"), 40)
    with served.database("ledger").begin() as connection:  # the study of report r1, which says: bleeding
        analysed = tasks.c.state == "analysed", tasks.c.model == "ct_haemorrhage"
        uid = connection.scalar(select(tasks.c.study_instance_uid).where(*analysed).limit(1))
        same = studies.c.study_instance_uid == uid
        connection.execute(update(studies).where(same).values(accession_number="A-r1"))
    window = browse("vera")
    window.goto("/monitoring")
    table = window.get_by_role("region", name="Models against reports")
    rows = table.get_by_role("row").filter(has_text="CT haemorrhage")
    assert sum(int(row.get_by_role("cell").nth(2).inner_text()) for row in rows.all()) == 1
    keep_pictures(window, "monitoring-reports")
