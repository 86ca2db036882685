"""`falx infer`: files in, result files out, as the node would choose, analyse and encode. No network, no ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_sr.build import build_results
from dicom_sr.check import checked_bytes
from dicom_sr.identity import input_key
from dicom_sr.request import DestinationProfile, MixedSources, ResultRequest, UnusedSeries
from inference.result import Finding, Reason
from node.analysis import Analysis, Analyst, analyse_series, read_sources
from node.catalog import Catalog, CatalogSeries
from node.config import CompletionSettings, ModelSettings
from node.rules.completion import SeriesView, judge
from node.rules.series_choice import Candidate, choose_series, facts_of, why_none
from node.study import MODALITY_OF, TaskState

NOT_SELECTED = "not_selected"
LONG_S = 1e6


@dataclass(slots=True, kw_only=True)
class SeriesAnswer:
    """What became of one series. ``state`` is a final TaskState or ``not_selected``."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    description: str
    state: str = NOT_SELECTED
    reason: Reason | None = None
    findings: tuple[Finding, ...] = ()
    objects: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As docs/results.md describes it."""
        return {
            "study_instance_uid": self.study_instance_uid,
            "series_instance_uid": self.series_instance_uid,
            "modality": self.modality,
            "description": self.description,
            "state": self.state,
            "reason": asdict(self.reason) if self.reason else None,
            "findings": [_finding_json(finding) for finding in self.findings],
            "objects": self.objects,
            "seconds": round(self.seconds, 3),
        }


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "label": finding.label,
        "probability": finding.probability,
        "threshold": finding.threshold,
        "present": finding.present,
        "slices": [
            {
                "sop_instance_uid": one.sop_instance_uid,
                "frame_number": one.frame_number,
                "probability": one.probability,
                "attention": one.attention,
            }
            for one in finding.slices
        ],
    }


def infer_folder(
    catalog: Catalog,
    out: Path,
    engine: Analyst,
    models: dict[str, ModelSettings],
    notes: Mapping[str, str],
    on_series: Callable[[SeriesAnswer], None] = lambda _: None,
) -> list[SeriesAnswer]:
    """Answer for every series of a catalog; result objects go to ``out``, one folder a study."""
    answers = []
    for study_uid, members in catalog.studies().items():
        for answer in _infer_study(study_uid, members, out, engine, models, notes):
            answers.append(answer)
            on_series(answer)
    return answers


def _infer_study(
    study_uid: str,
    members: Sequence[CatalogSeries],
    out: Path,
    engine: Analyst,
    models: dict[str, ModelSettings],
    notes: Mapping[str, str],
) -> list[SeriesAnswer]:
    answers = {
        series.series_instance_uid: SeriesAnswer(
            study_instance_uid=study_uid,
            series_instance_uid=series.series_instance_uid,
            modality=series.headers[0].modality,
            description=series.headers[0].series_description,
            reason=Reason(code="wrong_modality", text="The series is not CT or MR."),
        )
        for series in members
    }
    for purpose, model in models.items():
        theirs = [series for series in members if series.headers[0].modality == MODALITY_OF[purpose]]
        if theirs:
            _infer_purpose(purpose, model, theirs, answers, out, engine, notes[purpose])
    return list(answers.values())


def _infer_purpose(
    purpose: str,
    model: ModelSettings,
    members: Sequence[CatalogSeries],
    answers: dict[str, SeriesAnswer],
    out: Path,
    engine: Analyst,
    note: str,
) -> None:
    choice = choose_series([facts_of(series.headers) for series in members], purpose, model.series)
    for candidate in choice.candidates:
        _say_why_not(answers[candidate.series_instance_uid], candidate)
    by_uid = {series.series_instance_uid: series for series in members}
    if choice.chosen is not None:
        series = by_uid[choice.chosen.series_instance_uid]
        incomplete = _possibly_incomplete(series)
        analysis = analyse_series(engine, purpose, series.files, possibly_incomplete=incomplete)
    else:
        series = by_uid[choice.candidates[0].series_instance_uid]
        incomplete = False
        analysis = Analysis(
            state=TaskState.UNSUITABLE, model=engine.model_id(purpose), reason=why_none(choice, purpose)
        )
    answer = answers[series.series_instance_uid]
    if choice.chosen is not None:
        answer.state, answer.reason = str(analysis.state), analysis.reason
        answer.findings = analysis.result.findings if analysis.result else ()
        answer.seconds = analysis.seconds
    unused = [c for c in choice.candidates if c.series_instance_uid != series.series_instance_uid]
    try:
        answer.objects = _write(purpose, model, series, analysis, incomplete, unused, out, note)
    except MixedSources as error:
        answer.state, answer.reason = str(TaskState.FAILED), Reason(code="mixed_sources", text=str(error))


def _say_why_not(answer: SeriesAnswer, candidate: Candidate) -> None:
    if candidate.eligible:
        answer.state = NOT_SELECTED
        answer.reason = Reason(code="less_suitable", text="Another series of the study fits better.")
    else:
        answer.state = str(TaskState.UNSUITABLE)
        answer.reason = candidate.reasons[0]


def _possibly_incomplete(series: CatalogSeries) -> bool:
    """Judged like a series that has long been silent."""
    at = datetime.now(UTC)
    view = SeriesView(
        headers=series.headers,
        first_received_at=at,
        last_received_at=at,
        sender_association_open=False,
        unchanged_s=LONG_S,
    )
    return judge(view, at, CompletionSettings()).possibly_incomplete


def _write(
    purpose: str,
    model: ModelSettings,
    series: CatalogSeries,
    analysis: Analysis,
    incomplete: bool,
    unused: Sequence[Candidate],
    out: Path,
    note: str,
) -> list[str]:
    sources = read_sources(series.files, analysis.volume)
    contents = [(header.sop_instance_uid, str(analysis.state)) for header in series.headers]
    request = ResultRequest(
        purpose=purpose,  # type: ignore[arg-type]  # one of the two literals by construction
        outcome=analysis.outcome,
        model=analysis.model,
        result=analysis.result,
        reason=analysis.reason,
        sources=sources,
        volume=analysis.volume,
        analysed_at=datetime.now().astimezone(),
        possibly_incomplete=incomplete,
        unused_series=tuple(
            UnusedSeries(series_instance_uid=c.series_instance_uid, description=c.description, reason=c.reasons[0])
            for c in unused
            if c.reasons
        ),
        predecessor=None,
        profile=DestinationProfile(heatmap_for_negatives=model.heatmap_for_negatives),
        model_note=note,
        # each run is a key of its own: the content time differs, and no UID may name two contents
        input_key=input_key(analysis.model, model.operating_point, f"offline {datetime.now(UTC)}", contents),
    )
    paths = []
    for number, made in enumerate(build_results(request), start=1):
        folder = out / series.series_instance_uid[:64].replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number:02d}-{made.kind}-{made.role}.dcm"
        path.write_bytes(checked_bytes(made.dataset))
        paths.append(str(path))
    return paths
