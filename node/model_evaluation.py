"""Run a model over labelled studies: the cases of an evaluation, and the report of `falx evaluate`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from inference.engine import Engine
from inference.labels import HAEMORRHAGE_KINDS, PUBLISHED_LABELS
from inference.result import InferenceResult, Reason
from inference.training.evaluation import Case, evaluate
from inference.training.label_file import Labels
from inference.training.records import hash_of_files
from inference.volume import SliceSource, Volume
from node.analysis import Analyst, read_head
from node.config import Settings
from node.errors import Misconfigured
from node.local_studies import PURPOSES, LocalStudies, LocalStudy
from node.model_folders import model_folder

SYNTHETIC_NOTE = "Shipped models are trained on synthetic heads; their thresholds were chosen on synthetic heads."
KINDS = {"ct": HAEMORRHAGE_KINDS, "mr": PUBLISHED_LABELS[1:]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The cases of one run, why studies gave none, and what the numbers belong to."""

    cases: tuple[Case, ...]
    declined: dict[str, int]
    threshold: float
    operating_point: str
    model_sha256: str
    data_sha256: str


def run_model(
    local: LocalStudies,
    modality: str,
    engine: Analyst,
    *,
    baselines: bool = True,
    on_study: Callable[[], None] = lambda: None,
) -> Run:
    """Analyse every study as the node would, the head cut out first, and keep what evaluation needs."""
    purpose, _ = PURPOSES[modality]
    cases: list[Case] = []
    declined: dict[str, int] = {}
    digest = hashlib.sha256(local.labels_sha256.encode())
    threshold, point = float("nan"), ""
    for study in local.studies:
        digest.update(hash_of_files(study.files).encode())
        found = read_head(study.files, engine.locate)
        if isinstance(found, Reason):
            declined[found.code] = declined.get(found.code, 0) + 1
            cases.append(_case(study, modality, None, {}))
            on_study()
            continue
        volume, head = found
        result = engine.analyse(purpose, head)
        threshold, point = result.findings[0].threshold, result.findings[0].operating_point
        if result.reason is not None:
            declined[result.reason.code] = declined.get(result.reason.code, 0) + 1
        scores = _baselines(modality, head) if baselines else {}
        cases.append(_case(study, modality, result, scores, _left_out(volume, head)))
        on_study()
    return Run(
        cases=tuple(cases),
        declined=declined,
        threshold=threshold,
        operating_point=point,
        model_sha256=engine.model_id(purpose).weights_sha256,
        data_sha256=digest.hexdigest(),
    )


def report(run: Run, local: LocalStudies, modality: str, prevalence: float | None) -> dict[str, object]:
    """Return the JSON document of `falx evaluate` (docs/training.md)."""
    document = evaluate(run.cases, threshold=run.threshold, prevalence=prevalence)
    return document | {
        "modality": modality,
        "operating_point": run.operating_point,
        "declined": run.declined,
        "unused": {reason.code: sum(r.code == reason.code for _, r in local.unused) for _, reason in local.unused},
        "ignored_columns": list(local.ignored_columns),
        "model_sha256": run.model_sha256,
        "data_sha256": run.data_sha256,
        "note": f"RESEARCH USE ONLY. {SYNTHETIC_NOTE}",
    }


def _baselines(modality: str, volume: Volume) -> dict[str, float]:
    if modality == "ct":
        from inference.training.blob_baseline import blob_score

        score = blob_score(volume)
        return {} if score is None else {"blob": score}
    from inference.training.mr_baselines import volume_scores

    return volume_scores(volume)


def _left_out(volume: Volume, head: Volume) -> tuple[SliceSource, ...]:
    """The slices that the model did not see, as holding no brain."""
    seen = {source.sop_instance_uid for source in head.geometry.slices}
    return tuple(source for source in volume.geometry.slices if source.sop_instance_uid not in seen)


def _case(
    study: LocalStudy,
    modality: str,
    result: InferenceResult | None,
    baselines: dict[str, float],
    left_out: Sequence[SliceSource] = (),
) -> Case:
    """A study's case; slices left out count as called free of the finding."""
    _, label = PURPOSES[modality]
    main = result.findings[0] if result is not None else None
    slices = main.slices if main is not None else ()
    labels, unseen = (
        tuple(_number(study.slice_labels.get(s.sop_instance_uid), label) for s in group) for group in (slices, left_out)
    )
    return Case(
        name=study.study_instance_uid,
        patient=study.patient,
        label=study.labels[label] == 1,
        probability=main.probability if main is not None else None,
        kinds=tuple(kind for kind in KINDS[modality] if study.labels.get(kind) == 1),
        slice_labels=labels + unseen,
        slice_probabilities=tuple(s.probability for s in slices) + (0.0,) * len(unseen),
        pointed=_pointed(result, labels),
        groups=dict(study.groups),
        baselines=baselines,
    )


def _number(labels: Labels | None, label: str) -> float:
    value = labels.get(label) if labels is not None else None
    return float("nan") if value is None else float(value)


def _pointed(result: InferenceResult | None, labels: Sequence[float]) -> bool | None:
    """Whether the heatmap's peak lies on a slice labelled positive (pointing game: Zhang et al., IJCV 2018)."""
    if result is None or result.heatmap is None or 1.0 not in labels or len(labels) != len(result.heatmap.values):
        return None
    peak = int(np.argmax(result.heatmap.values.max(axis=(1, 2))))
    return labels[peak] == 1.0


def plot_calibration(document: dict[str, object], path: Path) -> None:
    """Draw the reliability curve of an evaluation: stated against observed frequency, with counts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = document.get("reliability")
    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect")
    if isinstance(rows, list):
        axis.plot([r["mean"] for r in rows], [r["observed"] for r in rows], marker="o", label="model")
        for r in rows:
            axis.annotate(
                str(r["n"]), (r["mean"], r["observed"]), textcoords="offset points", xytext=(5, -10), fontsize=8
            )
    axis.set(xlabel="stated probability", ylabel="observed frequency", xlim=(0, 1), ylim=(0, 1))
    axis.set_title("Calibration - RESEARCH USE ONLY", fontsize=10)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def load_one(settings: Settings, purpose: str, folder: Path | None, operating_point: str) -> Analyst:
    """The engine with one model: the given folder, else what the node would use; raise Misconfigured when unusable."""
    chosen = folder or model_folder(settings, purpose)
    points = {purpose: operating_point} if operating_point else {}
    try:
        engine = Engine({purpose: chosen}, device=settings.models.device, operating_points=points)
    except (ValueError, OSError) as error:
        raise Misconfigured(f"models: {error}") from error
    engine.warm_up()
    return engine


def save_cases(run: Run, path: Path) -> None:
    """Write the cases as JSON, one a line; names are UIDs, patients hashes."""
    lines = []
    for case in run.cases:
        hidden = hashlib.sha256(case.patient.encode()).hexdigest()[:16]
        lines.append(json.dumps(asdict(replace(case, patient=hidden))))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_cases(path: Path) -> list[Case]:
    """Read what :func:`save_cases` wrote; raise Misconfigured when it is something else."""
    try:
        documents = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        return [
            Case(
                **document | {name: tuple(document[name]) for name in ("kinds", "slice_labels", "slice_probabilities")}
            )
            for document in documents
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(f"{path} holds no cases of `falx evaluate --cases`: {error}") from error
