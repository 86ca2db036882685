"""A ledger full of made-up studies, written straight into the tables."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, insert

from node.store.database import now
from node.store.ledger_tables import deliveries, objects, series, studies, tasks

SLICES = 30


def study_uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.10.1.{number}"


def fill(ledger: Engine, number: int, *, seed: int = 0) -> None:
    """Write ``number`` studies in all states, with evidence per slice and three deliveries each."""
    draw = random.Random(seed)
    rows: dict[str, list[dict[str, Any]]] = {"studies": [], "series": [], "tasks": [], "objects": [], "deliveries": []}
    for index in range(number):
        _study(rows, index, draw)
    with ledger.begin() as connection:
        for table in (studies, series, tasks, objects, deliveries):
            connection.execute(insert(table), rows[table.name])


def _study(rows: dict[str, list[dict[str, Any]]], index: int, draw: random.Random) -> None:
    uid, at = study_uid(index), now() - timedelta(minutes=draw.uniform(1, 4000))
    ct = draw.random() < 0.6
    rows["studies"].append(
        {
            "study_instance_uid": uid,
            "first_received_at": at,
            "last_received_at": at,
            "priority": "stat" if draw.random() < 0.05 else "routine",
            "patient_name": f"Phantom^Number{index}",
            "patient_id": f"P{index:06d}",
            "accession_number": f"A{index:06d}",
            "study_description": "Head plain" if ct else "Brain T2",
        }
    )
    rows["series"].append(
        {
            "series_instance_uid": uid + ".1",
            "study_instance_uid": uid,
            "state": "complete",
            "version": 1,
            "modality": "CT" if ct else "MR",
            "instances": SLICES,
            "for_analysis": True,
            "first_received_at": at,
            "last_received_at": at,
        }
    )
    state = draw.choices(["analysed", "waiting", "undetermined", "unsuitable", "failed"], [80, 8, 5, 5, 2])[0]
    probability = draw.random()
    finding = {
        "label": "intracranial_haemorrhage" if ct else "abnormal",
        "probability": probability if state == "analysed" else None,
        "threshold": 0.5,
        "operating_point": "ppv",
        "present": probability >= 0.5 if state == "analysed" else None,
        "calibrated": True,
        "slices": [
            {
                "sop_instance_uid": f"{uid}.1.{z}",
                "frame_number": None,
                "probability": draw.random(),
                "attention": 1 / SLICES,
            }
            for z in range(SLICES)
        ],
    }
    rows["tasks"].append(
        {
            "task_id": index + 1,
            "study_instance_uid": uid,
            "model": "ct_haemorrhage" if ct else "mr_abnormality",
            "version": 1,
            "state": state,
            "reason_text": "" if state in {"analysed", "waiting"} else "a reason in words",
            "series_instance_uid": uid + ".1",
            "last_instance_at": at,
            "created_at": at,
            "run_after": at,
            "finished_at": None if state == "waiting" else at + timedelta(seconds=draw.uniform(2, 9)),
            "seconds": None if state == "waiting" else draw.uniform(0.5, 2),
            "findings": [finding] if state in {"analysed", "undetermined"} else [],
            "model_name": "falx-ct",
            "model_version": "1.0.0",
            "model_sha256": "ab" * 32,
        }
    )
    if state == "waiting":
        return
    for kind, role in (("SR", "result"), ("SC", "heatmap"), ("KO", "key-objects")):
        rows["objects"].append(
            {
                "sop_instance_uid": f"{uid}.2.{kind == 'SR'}{len(rows['objects'])}".replace("True", "1").replace(
                    "False", "0"
                ),
                "task_id": index + 1,
                "study_instance_uid": uid,
                "series_instance_uid": uid + ".2",
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
                "kind": kind,
                "role": role,
                "profile": "pacs",
                "path": "outbox/none",
                "sha256": "0" * 64,
                "created_at": at,
            }
        )
        rows["deliveries"].append(
            {
                "sop_instance_uid": rows["objects"][-1]["sop_instance_uid"],
                "study_instance_uid": uid,
                "destination": "pacs",
                "rank": 0,
                "state": draw.choices(["confirmed", "queued", "dead"], [95, 4, 1])[0],
                "run_after": at,
                "queued_at": at,
                "error": "",
            }
        )
