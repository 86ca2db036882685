"""ONE STUDY, in a straight line: a newcomer starts reading here.

    claim -> 1 gather the sources -> 2 recognise what was answered before -> 3 read and analyse -> 4 build and check
          -> 5 store the objects' bytes -> 6 one transaction: the task's state, its objects, their deliveries

A process killed at any step leaves the task claimed; when the claim is freed the steps are repeated with the same UIDs
(decision 5), and nothing that a PACS could see happens twice. Delivery takes over from the outbox; it is never called.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy import Connection, Engine, RowMapping

from dicom_sr.build import build_rejection_note, build_results
from dicom_sr.check import checked_bytes
from dicom_sr.identity import input_key
from dicom_sr.request import (
    DestinationProfile,
    MixedSources,
    Predecessor,
    RejectedObject,
    ResultObject,
    ResultRequest,
    UnusedSeries,
)
from inference.result import ModelId, Reason
from node import log
from node.analysis import Analysis, Analyst, analyse_series, read_sources
from node.config import DestinationSettings, ModelSettings, Settings
from node.errors import Transient
from node.store import ledger, outbox
from node.store.database import now, reading
from node.study import TaskState

RETRY = timedelta(seconds=30)
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a worker works with."""

    settings: Settings
    ledger: Engine
    engine: Analyst
    notes: Mapping[str, str]  # purpose -> what the report must say of the model
    shadow_engine: Analyst | None = None

    def analyst(self, task: RowMapping) -> Analyst:
        """The engine that answers a task: the candidate's for a shadow task."""
        if task["shadow"] and self.shadow_engine is not None:
            return self.shadow_engine
        return self.engine


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltObject:
    """One object of one profile, with the very bytes that were checked."""

    profile: str
    made: ResultObject
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The files a task reads, with the hash of each instance's content."""

    files: tuple[Path, ...]
    contents: tuple[tuple[str, str], ...]


def profile_of(destination: DestinationSettings, model: ModelSettings) -> DestinationProfile:
    """Which objects a destination takes of a model."""
    return DestinationProfile(
        sr=destination.sr,
        heatmap=destination.heatmap,
        key_objects=destination.key_objects,
        parametric_map=destination.parametric_map,
        heatmap_for_negatives=model.heatmap_for_negatives,
    )


def run_task(task: RowMapping, bench: Bench) -> None:
    """Answer one claimed task. Raises Transient when it should be tried again later."""
    sources = gather(task, bench)
    analyst = bench.analyst(task)
    key = _key(task, bench, analyst, sources)
    if answered_before(task, bench, key):
        return
    if task["attempt"] > ledger.MAX_ATTEMPTS:
        analysis = _gave_up(task, analyst)
    elif not task["series_instance_uid"]:
        analysis = _nothing_fits(task, analyst)
    else:
        analysis = analyse_series(
            analyst, task["model"], sources.files, possibly_incomplete=task["possibly_incomplete"]
        )
    conclude(task, bench, sources, analysis, key)


def conclude(task: RowMapping, bench: Bench, sources: Sources, analysis: Analysis, key: str) -> None:
    """Build, check, store and commit what the analysis says."""
    at = now()
    if task["shadow"]:
        commit(task, bench, analysis, key, [], at)
        return
    if analysis.state in (TaskState.UNSUITABLE, TaskState.FAILED):
        key = f"{key}/{analysis.state}/{task['version']}"  # a later try may say something else: other UIDs
    try:
        built = build(task, bench, sources, analysis, key, at)
    except MixedSources as error:
        hold(task, bench, analysis, str(error), at)
        return
    commit(task, bench, analysis, key, store(bench, built, task), at)


def gather(task: RowMapping, bench: Bench) -> Sources:
    """1: the chosen series' files, or one file of each series of the study when none fits."""
    folder = bench.settings.storage.folder
    with reading(bench.ledger) as connection:
        if task["series_instance_uid"]:
            rows = list(ledger.instances_of(connection, task["series_instance_uid"]))
        else:
            all_series = ledger.series_of(connection, task["study_instance_uid"])
            rows = [
                found[0]
                for one in all_series
                if one["for_analysis"] and (found := ledger.instances_of(connection, one["series_instance_uid"]))
            ]
    return Sources(
        files=tuple(folder / row["path"] for row in rows),
        contents=tuple((row["sop_instance_uid"], row["sha256"]) for row in rows),
    )


def _key(task: RowMapping, bench: Bench, analyst: Analyst, sources: Sources) -> str:
    point = bench.settings.models.by_purpose[task["model"]].operating_point
    incomplete = "possibly-incomplete" if task["possibly_incomplete"] else ""
    reading = f"{incomplete} slices by {analyst.slice_level_id.weights_sha256}"
    return input_key(analyst.model_id(task["model"]), point, reading, sources.contents)


def answered_before(task: RowMapping, bench: Bench, key: str) -> bool:
    """2: whether an earlier version has this very input; the task is then dropped and the old answer stands."""
    with bench.ledger.begin() as connection:
        for old in ledger.superseded(connection, task["task_id"]):
            if old["input_key"] == key and old["state"] in (TaskState.ANALYSED, TaskState.UNDETERMINED):
                ledger.drop_task(connection, task["task_id"])
                ledger.record(connection, "recognised", task["study_instance_uid"], at=now(), detail="same input")
                return True
    return False


def _nothing_fits(task: RowMapping, analyst: Analyst) -> Analysis:
    reason = Reason(code=task["reason_code"], text=task["reason_text"])
    return Analysis(state=TaskState.UNSUITABLE, model=analyst.model_id(task["model"]), reason=reason)


def _gave_up(task: RowMapping, analyst: Analyst) -> Analysis:
    text = f"The analysis failed {ledger.MAX_ATTEMPTS} times; see the log, then `falx retry`."
    reason = Reason(code="worker_failed", text=text)
    return Analysis(state=TaskState.FAILED, model=analyst.model_id(task["model"]), reason=reason)


def build(
    task: RowMapping, bench: Bench, sources: Sources, analysis: Analysis, key: str, at: datetime
) -> list[BuiltObject]:
    """4: the objects of every profile that some destination takes, each checked. Raises MixedSources."""
    model = bench.settings.models.by_purpose[task["model"]]
    profiles = {profile_of(destination, model) for destination in bench.settings.destinations}
    headers = read_sources(sources.files, analysis.volume)
    built: list[BuiltObject] = []
    for profile in sorted(profiles, key=lambda p: p.id):
        request = ResultRequest(
            purpose=task["model"],
            outcome=analysis.outcome,
            model=analysis.model,
            result=analysis.result,
            reason=analysis.reason,
            sources=headers,
            volume=analysis.volume,
            analysed_at=at.astimezone(),  # content times are read on the wards' clocks
            possibly_incomplete=task["possibly_incomplete"],
            unused_series=_unused(task),
            predecessor=_predecessor(task, bench, profile),
            profile=profile,
            input_key=key,
            model_note=bench.notes[task["model"]],
        )
        made = [*build_results(request), *_rejections(task, bench, headers[0], profile, analysis.model, at)]
        built += [BuiltObject(profile=profile.id, made=one, content=checked_bytes(one.dataset)) for one in made]
    return built


def _unused(task: RowMapping) -> tuple[UnusedSeries, ...]:
    unused = []
    for candidate in task["choice"]:
        if candidate["series_instance_uid"] != task["series_instance_uid"]:
            reasons = candidate["reasons"] or [{"code": "less_suitable", "text": "another series fits better"}]
            unused.append(
                UnusedSeries(
                    series_instance_uid=candidate["series_instance_uid"],
                    description=candidate["description"],
                    reason=Reason(code=reasons[0]["code"], text=reasons[0]["text"]),
                )
            )
    return tuple(unused)


def _replaced(task: RowMapping, bench: Bench, profile: DestinationProfile) -> Sequence[RowMapping]:
    with reading(bench.ledger) as connection:
        old = ledger.superseded(connection, task["task_id"])
        return outbox.objects_of(connection, old[0]["task_id"], profile.id) if old else []


def _predecessor(task: RowMapping, bench: Bench, profile: DestinationProfile) -> Predecessor | None:
    for row in _replaced(task, bench, profile):
        if row["role"] == "result":
            header = outbox.header_of(bench.settings.storage, row)
            return Predecessor(
                sop_class_uid=row["sop_class_uid"],
                sop_instance_uid=row["sop_instance_uid"],
                series_instance_uid=row["series_instance_uid"],
                series_description=str(header.get("SeriesDescription", "")),
                series_number=header.get("SeriesNumber"),
            )
    return None


def _rejections(
    task: RowMapping, bench: Bench, header: Dataset, profile: DestinationProfile, model: ModelId, at: datetime
) -> list[ResultObject]:
    settings = bench.settings.models.by_purpose[task["model"]]
    takers = [d for d in bench.settings.destinations if d.rejection_notes and profile_of(d, settings) == profile]
    rows = [row for row in _replaced(task, bench, profile) if row["role"] != "rejection-note"]
    if not takers or not rows:
        return []
    text = "Replaced by a newer result."
    return [
        build_rejection_note(header=header, rejected=rejected_objects(rows), model=model, text=text, rejected_at=at)
    ]


def rejected_objects(rows: Iterable[RowMapping]) -> list[RejectedObject]:
    """Ledger rows of objects as the encoder wants them named."""
    return [
        RejectedObject(
            sop_class_uid=row["sop_class_uid"],
            sop_instance_uid=row["sop_instance_uid"],
            series_instance_uid=row["series_instance_uid"],
        )
        for row in rows
    ]


def store(bench: Bench, built: Sequence[BuiltObject], task: RowMapping) -> list[outbox.OutboxObject]:
    """5: the objects' bytes on disk, before any row speaks of them. Raises Transient when the disk is full."""
    try:
        return [
            outbox.store_object(
                bench.settings.storage,
                one.made.dataset,
                kind=one.made.kind,
                role=one.made.role,
                profile=one.profile,
                task_id=task["task_id"],
                content=one.content,
            )
            for one in built
        ]
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise Transient("no space left to write results; free space or raise storage limits") from error
        raise


def commit(
    task: RowMapping,
    bench: Bench,
    analysis: Analysis,
    key: str,
    objects: Sequence[outbox.OutboxObject],
    at: datetime,
) -> None:
    """6: one transaction: final state, objects, deliveries; what it supersedes is no longer sent."""
    values = {
        "input_key": key,
        "finished_at": at,
        "seconds": analysis.seconds,
        "reason_code": analysis.reason.code if analysis.reason else "",
        "reason_text": analysis.reason.text if analysis.reason else "",
        "model_name": analysis.model.name,
        "model_version": analysis.model.version,
        "model_sha256": analysis.model.weights_sha256,
        "findings": [asdict(finding) for finding in analysis.result.findings] if analysis.result else [],
    }
    with bench.ledger.begin() as connection:
        for old in ledger.superseded(connection, task["task_id"]):
            outbox.cancel(connection, old["task_id"], why=f"replaced by version {task['version']}", at=at)
        ledger.finish_task(connection, task["task_id"], analysis.state, values)
        _enqueue(connection, bench, task, objects, at)
        detail = f"{task['model']} version {task['version']}: {analysis.state}"
        ledger.record(connection, "task_finished", task["study_instance_uid"], at=at, detail=detail)
    log.get().info("task_finished", task=task["task_id"], model=task["model"], state=str(analysis.state))


def _enqueue(
    connection: Connection, bench: Bench, task: RowMapping, objects: Sequence[outbox.OutboxObject], at: datetime
) -> None:
    model = bench.settings.models.by_purpose[task["model"]]
    for destination in bench.settings.destinations:
        profile = profile_of(destination, model).id
        theirs = [o for o in objects if o.profile == profile]
        if not destination.rejection_notes:
            theirs = [o for o in theirs if o.role != "rejection-note"]
        outbox.enqueue(connection, objects=theirs, destinations=[destination.name], at=at)


def hold(task: RowMapping, bench: Bench, analysis: Analysis, why: str, at: datetime) -> None:
    """A mismatch among the sources: nothing is sent under a doubtful identity; the worklist shows why."""
    with bench.ledger.begin() as connection:
        ledger.hold_study(connection, task["study_instance_uid"], why)
        values = {"finished_at": at, "reason_code": "mixed_sources", "reason_text": why, "seconds": analysis.seconds}
        ledger.finish_task(connection, task["task_id"], TaskState.FAILED, values)
        ledger.record(connection, "held", task["study_instance_uid"], at=at, detail=why)
    log.get().warning("result_held", task=task["task_id"], why=why)
