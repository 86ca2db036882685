"""A study's page in Chromium, over real files: slices, evidence, the stored heatmap, deliveries, retry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fixtures_head as heads
import httpx
import numpy as np
import pydicom
import pytest
from playwright.sync_api import expect
from sqlalchemy import insert, select, update

from dicom_sr.build import build_results
from dicom_sr.request import DestinationProfile, ResultRequest
from inference.result import Finding, Heatmap, InferenceResult, ModelId, SliceEvidence
from inference.series_reader import read_volume
from node.store import outbox
from node.store.database import now
from node.store.ledger_tables import audit, deliveries, instances, series, studies, tasks

STUDY = "1.2.826.0.1.3680043.10.1.77"
MODEL = ModelId(name="falx-ct", version="1.0.0", weights_sha256="ab" * 32)
PASSWORD = "correct horse battery"


@pytest.fixture
def received(served: Any) -> Any:
    """One analysed study with its files, its objects in the outbox and a dead delivery."""
    storage = served.settings.storage
    files = heads.write_head(storage.folder / "spool" / "head", STUDY)
    volume = read_volume(files)
    depth = volume.geometry.shape_zyx[0]
    level = np.arange(depth) / (depth - 1)
    evidence = np.exp(-(((level - 0.55) / 0.1) ** 2))
    values = np.where(volume.voxels > 60, 1, 0).astype(np.float32) * (volume.voxels < 100)
    finding = Finding(
        label="intracranial_haemorrhage",
        probability=0.91,
        threshold=0.6,
        operating_point="ppv",
        present=True,
        slices=tuple(
            SliceEvidence(
                sop_instance_uid=source.sop_instance_uid,
                frame_number=None,
                probability=float(evidence[z] * 0.95),
                attention=float(evidence[z] / evidence.sum()),
            )
            for z, source in enumerate(volume.geometry.slices)
        ),
    )
    result = InferenceResult(model=MODEL, findings=(finding,), heatmap=Heatmap(values=values, geometry=volume.geometry))
    at = now()
    built = build_results(
        ResultRequest(
            purpose="ct_haemorrhage",
            outcome="analysed",
            model=MODEL,
            result=result,
            reason=None,
            sources=tuple(pydicom.dcmread(path, stop_before_pixels=True) for path in files),
            volume=volume,
            analysed_at=at,
            possibly_incomplete=False,
            unused_series=(),
            predecessor=None,
            profile=DestinationProfile(),
            input_key=hashlib.sha256(b"test").hexdigest(),
        )
    )
    with served.database("ledger").begin() as connection:
        _book(connection, files, finding, at)
        stored = [
            outbox.store_object(storage, o.dataset, kind=o.kind, role=o.role, profile="p", task_id=1) for o in built
        ]
        outbox.enqueue(connection, objects=stored, destinations=["pacs"], at=at)
        connection.execute(
            update(deliveries).where(deliveries.c.rank == 0).values(state="dead", error="the peer is away", attempt=4)
        )
    return served


def _book(connection: Any, files: list[Path], finding: Finding, at: Any) -> None:
    connection.execute(
        insert(studies).values(
            study_instance_uid=STUDY,
            first_received_at=at,
            last_received_at=at,
            patient_name="Phantom^Head",
            patient_id="P1",
            study_description="Head plain",
        )
    )
    connection.execute(
        insert(series).values(
            series_instance_uid=f"{STUDY}.1",
            study_instance_uid=STUDY,
            state="complete",
            version=1,
            modality="CT",
            description="Head 5 mm",
            instances=len(files),
            for_analysis=True,
            first_received_at=at,
            last_received_at=at,
            calling_ae="MODALITY",
        )
    )
    folder = files[0].parents[2]
    for number, path in enumerate(files):
        connection.execute(
            insert(instances).values(
                sop_instance_uid=f"{STUDY}.1.{number + 1}",
                series_instance_uid=f"{STUDY}.1",
                study_instance_uid=STUDY,
                path=str(path.relative_to(folder)),
                sha256="0" * 64,
                header={},
                received_at=at,
                intake_seq=number,
            )
        )
    connection.execute(
        insert(tasks).values(
            task_id=1,
            study_instance_uid=STUDY,
            model="ct_haemorrhage",
            version=1,
            state="analysed",
            series_instance_uid=f"{STUDY}.1",
            last_instance_at=at,
            created_at=at,
            run_after=at,
            finished_at=at,
            seconds=1.4,
            model_name=MODEL.name,
            model_version=MODEL.version,
            model_sha256=MODEL.weights_sha256,
            findings=[asdict(finding)],
            choice=[
                {
                    "series_instance_uid": f"{STUDY}.1",
                    "description": "Head 5 mm",
                    "eligible": True,
                    "score": 1.0,
                    "reasons": [{"code": "thickness", "text": "slices of 5 mm"}],
                }
            ],
        )
    )


def test_viewer_by_keyboard_and_mouse(
    received: Any, browse: Callable[..., Any], keep_pictures: Callable[..., None]
) -> None:
    window = browse("vera")
    window.locator(".open").click()
    where = window.locator("#where")
    expect(where).to_contain_text("slice 14 of 24")  # the slice with the most evidence
    expect(where).to_contain_text("C 40 W 80 HU")
    assert "Phantom" not in window.url
    window.get_by_text("Which series and why").click()
    expect(window.get_by_text("slices of 5 mm")).to_be_visible()
    window.locator("#stage").focus()
    window.keyboard.press("ArrowDown")
    expect(where).to_contain_text("slice 15 of 24")
    window.keyboard.press("]")
    expect(where).to_contain_text("W 88")
    window.locator("#evidence button").nth(12).click()
    expect(where).to_contain_text("slice 13 of 24")
    keep_pictures(window, "study")
    window.keyboard.press("h")
    expect(window.locator("#heat-frame")).to_be_visible()
    expect(window.locator("#heat")).to_have_attribute("aria-pressed", "true")
    frame = "document.getElementById('heat-frame')"
    assert window.evaluate(f"{frame}.decode().then(() => {frame}.naturalWidth)") == 96
    window.screenshot(path=Path(__file__).parents[3] / "artefacts" / "study-heatmap.png")


def test_delivery_errors_are_shown_and_an_admin_retries(received: Any, browse: Callable[..., Any]) -> None:
    window = browse("vera")
    window.goto(f"/studies/{STUDY}")
    expect(window.get_by_text("the peer is away")).to_be_visible()
    expect(window.get_by_role("button", name="Retry what failed")).to_have_count(0)
    admin = browse("root")
    admin.goto(f"/studies/{STUDY}")
    admin.get_by_role("button", name="Retry what failed").click()
    expect(admin.get_by_role("button", name="Retry what failed")).to_have_count(0)
    with received.database("ledger").connect() as connection:
        assert "dead" not in set(connection.scalars(select(deliveries.c.state)))
        line = connection.execute(select(audit).where(audit.c.action == "retry")).one()
    assert line.actor == "root"
    assert line.detail == "1 deliveries, 0 analyses"


def test_pixels_need_a_session_and_the_right_study(received: Any) -> None:
    path = f"/studies/{STUDY}/series/{STUDY}.1/slices/3"
    with httpx.Client(base_url=received.url) as client:
        assert client.get(path).status_code == 401
        client.post("/signin", data={"name": "vera", "password": PASSWORD})
        values = np.frombuffer(client.get(path).content, "<i2").reshape(96, 96)
        assert abs(int(np.median(values[44:52, 20:30])) - 35) <= 3
        assert client.get(f"/studies/1.2.3/series/{STUDY}.1/slices/3").status_code == 404
        assert client.get(f"/studies/{STUDY}/series/{STUDY}.1/slices/999").status_code == 404
        assert client.get("/studies/1.2.3").status_code == 404
