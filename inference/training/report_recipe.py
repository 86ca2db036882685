"""Makes a report model folder: calibration and abstention band fitted on labelled reports, weights, metadata.

Run as ``python -m inference.training.report_recipe --out DIR --dev FILE`` it trains the shipped model from nothing but
the synthetic corpus; the development set sets the calibration and is never trained on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inference.calibration import Calibration, fit_platt, sigmoid
from inference.labels import REPORT_LABELS
from inference.report_net import ReportNet
from inference.report_scoring import LabelPoint, compact_members
from inference.training.report_evaluation import as_json, evaluate, length_bias, mean_auc
from inference.training.report_fit import (
    Example,
    FitSettings,
    fit,
    labelled_example,
    new_net,
    predict,
    synthetic_examples,
)
from inference.weights import Metadata, OperatingPoint, save_model

Floats = npt.NDArray[np.float32]
SYNTHETIC_NOTICE = (
    "RESEARCH USE ONLY. Labels reports for training and monitoring of models; not for decisions about a patient. "
    "The shipped weights were trained on synthetic reports."
)
_MIN_OF_A_CLASS = 8
_MAX_SLOPE, _MIN_SLOPE = 3.0, 0.2
_PENALTIES = np.arange(0.0, 2.01, 0.25)
_ACCEPTED_LENGTH_BIAS = 0.15


def fit_points(logits: Floats, references: Sequence[Mapping[str, int | None]]) -> dict[str, LabelPoint]:
    """Calibrate each label on labelled reports; a label with fewer than eight of a class keeps its bare score."""
    points: dict[str, LabelPoint] = {}
    for column, label in enumerate(REPORT_LABELS):
        pairs = [(logits[row, column], ref[label]) for row, ref in enumerate(references) if ref.get(label) is not None]
        truth = np.array([value for _, value in pairs], dtype=float)
        if min(truth.sum(), (1 - truth).sum()) < _MIN_OF_A_CLASS:
            points[label] = LabelPoint()
            continue
        platt = fit_platt(np.array([logit for logit, _ in pairs]), truth, f"report-{label}")
        slope = float(np.clip(platt.slope, _MIN_SLOPE, _MAX_SLOPE))
        points[label] = LabelPoint(slope=round(slope, 4), intercept=round(float(platt.intercept), 4))
    return points


def decisions(logits: Floats, points: Mapping[str, LabelPoint]) -> list[dict[str, int | None]]:
    """What the labeller would say for these logits."""
    out: list[dict[str, int | None]] = []
    for row in logits:
        out.append(
            {
                label: points[label].decide(float(sigmoid(points[label].slope * row[i] + points[label].intercept)))
                for i, label in enumerate(REPORT_LABELS)
            }
        )
    return out


def save_compact(
    folder: Path,
    members: Sequence[ReportNet],
    points: Mapping[str, LabelPoint],
    *,
    version: str,
    training: Mapping[str, Any],
    name: str = "falx-report-labels",
    intended_use: str = SYNTHETIC_NOTICE,
) -> Metadata:
    """Write a folder that `ReportLabeller.load` reads; weights are stored in half precision."""
    tensors = {
        f"{number}.{key}": value.half() for number, net in enumerate(members) for key, value in net.state_dict().items()
    }
    architecture = {
        "kind": "compact",
        "members": len(members),
        "net": members[0].config.as_dict(),
        "points": {label: asdict(point) for label, point in points.items()},
    }
    return save_model(folder, tensors, report_metadata(name, version, architecture, training, intended_use))


def report_metadata(
    name: str, version: str, architecture: Mapping[str, Any], training: Mapping[str, Any], intended_use: str
) -> Metadata:
    """Metadata of a report model: its calibration is one a label, in ``architecture.points``."""
    point = OperatingPoint(threshold=0.5, measured={"band": "architecture.points"})
    return Metadata(
        name=name,
        version=version,
        purpose="report_labels",
        architecture=architecture,
        operating_points={"labels": point},
        default_operating_point="labels",
        calibration=Calibration(identifier=f"{name}-{version}", kind="platt-per-label"),
        training=training,
        intended_use=intended_use,
    )


def read_labelled(path: Path) -> list[dict[str, Any]]:
    """Rows ``{"id", "modality", "text", "labels"}`` of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def development_examples(rows: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Examples of labelled rows; a row without a word is an error of the set."""
    examples = [labelled_example(row["text"], row["modality"], row["labels"]) for row in rows]
    if any(example is None for example in examples):
        raise ValueError(
            "a development report holds no word: "
            + str([r["id"] for r, e in zip(rows, examples, strict=True) if not e])
        )
    return [example for example in examples if example is not None]


def set_length_penalty(members: Sequence[ReportNet], examples: Sequence[Example], words: Sequence[int]) -> None:
    """Give the members the smallest length penalty that leaves no length bias among the normal reports.

    Fitted like the calibration, on labelled reports; with eight normal reports or fewer it is left as it is.
    """
    abnormal = np.array([example.report[0] for example in examples], dtype=float)
    if (abnormal == 0).sum() <= _MIN_OF_A_CLASS:
        return
    for penalty in _PENALTIES:
        for net in members:
            net.config = replace(net.config, length_penalty=float(penalty))
        logits = np.mean([predict(net, examples)[0][:, 0] for net in members], axis=0).astype(float)
        if abs(length_bias(logits, abnormal, words)) < _ACCEPTED_LENGTH_BIAS:
            return


def build(folder: Path, members: Sequence[ReportNet], dev_file: Path, *, version: str, reports: int) -> dict[str, Any]:
    """Calibrate on the development set, save, and return the record of what was measured there."""
    rows = read_labelled(dev_file)
    examples = development_examples(rows)
    words = [len(row["text"].split()) for row in rows]
    set_length_penalty(members, examples, words)
    logits = np.mean([predict(net, examples)[0] for net in members], axis=0)
    references = [row["labels"] for row in rows]
    points = fit_points(logits, references)
    results = evaluate(references, logits.astype(float), decisions(logits, points))
    abnormal = np.array([example.report[0] for example in examples], dtype=float)
    record = {
        "synthetic": True,
        "corpus": "inference/training/report_corpus.py",
        "reports_per_member": reports,
        "seeds": list(range(1, len(members) + 1)),
        "fitted_on": f"{dev_file} (calibration, length penalty, abstention band; the weights never saw it)",
        "development_mean_auc": round(mean_auc(results), 4),
        "development": as_json(results),
        "length_bias": round(length_bias(logits[:, 0].astype(float), abnormal, words), 3),
    }
    save_compact(folder, members, points, version=version, training=record)
    return record


def main() -> None:
    """Train the shipped model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dev", type=Path, default=Path("tests/data/report_dev_set.jsonl"))
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--reports", type=int, default=FitSettings().reports)
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument(
        "--start", type=Path, action="append", help="model folders to train further, as members; default: from nothing"
    )
    parser.add_argument("--learning-rate", type=float, default=FitSettings().learning_rate)
    options = parser.parse_args()
    torch.set_num_threads(1)
    starts = [net for folder in options.start or () for net in compact_members(folder)]
    members = []
    for seed, net in enumerate(starts or [new_net(n + 1) for n in range(options.members)], start=1):
        net.config = replace(net.config, length_penalty=0.0)
        settings = FitSettings(reports=options.reports, seed=seed, learning_rate=options.learning_rate)
        examples = synthetic_examples(options.reports, (seed + (100 if starts else 0)) * 10_000_000)
        members.append(
            fit(net, examples, settings, lambda step, loss: print(f"step {step} loss {loss:.3f}", flush=True))
            if options.reports
            else net
        )
    record = build(options.out, members, options.dev, version=options.version, reports=options.reports)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
