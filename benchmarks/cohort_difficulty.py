"""How hard is a synthetic CT cohort? ``python -m benchmarks.cohort_difficulty --n 100 --seed 5 --json FILE``

Tabulates what was drawn and scores the no-learning blob baseline (largest blob of 60-100 HU inside the mask).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.labels import HAEMORRHAGE_KINDS
from inference.training.blob_baseline import blob_score
from inference.training.cohort_ct import COHORT_STEP, draw_ct
from inference.training.evaluation import auc
from inference.training.head_template import load_template


def _study(seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    volume, truth = draw_ct(seed)
    return truth.facts | {"labels": truth.study_labels.tolist(), "blob_ml": blob_score(volume)}


def tabulate(studies: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares and quantiles over a cohort's studies."""
    positive = [s for s in studies if s["labels"][0]]
    negative = [s for s in studies if not s["labels"][0]]
    scored = [s for s in studies if s["blob_ml"] is not None]
    axial = [
        (size, age)
        for s in positive
        for kind, size, age in zip(s["kinds"], s["size_mm"], s["blood_age"], strict=True)
        if kind in ("subdural", "extradural")
    ]
    ages = [age for s in positive for age in s["blood_age"]]
    volumes = [s["volume_ml"] for s in positive]

    def share(flags: list[bool]) -> float:
        return round(float(np.mean(flags)), 3) if flags else float("nan")

    return {
        "n": len(studies),
        "positives": len(positive),
        "no_mask": len(studies) - len(scored),
        "blob_auc": round(auc([s["labels"][0] for s in scored], [s["blob_ml"] for s in scored]), 3),
        "blob_auc_by_kind": {
            kind: round(
                auc(
                    [s["labels"][1 + k] for s in scored if s["labels"][1 + k] or not s["labels"][0]],
                    [s["blob_ml"] for s in scored if s["labels"][1 + k] or not s["labels"][0]],
                ),
                3,
            )
            for k, kind in enumerate(HAEMORRHAGE_KINDS)
        },
        "kinds": {kind: sum(s["labels"][1 + k] for s in positive) for k, kind in enumerate(HAEMORRHAGE_KINDS)},
        "volume_ml_quartiles": [round(float(v), 2) for v in np.percentile(volumes, [5, 25, 50, 75, 95])],
        "extra_axial_thinner_than_5_mm": share([size < 5 for size, _ in axial]),
        "blood_isodense_or_darker": share([age in ("isodense", "hypodense") for age in ages]),
        "single_slice": share([s["positive_slices"] == 1 for s in positive]),
        "bleeds_without_fracture": share([not s["fracture"] for s in positive]),
        "fracture_among_negatives": share([bool(s["fracture"]) for s in negative]),
        "negatives_with_a_mimic": share([bool(s["mimics"]) for s in negative]),
        "clipped_export": share([bool(s["clipped_export"]) for s in studies]),
    }


def main() -> None:
    """Draw, tabulate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    load_template()
    seeds = range((chosen.seed + 1) * COHORT_STEP, (chosen.seed + 1) * COHORT_STEP + chosen.n)
    with multiprocessing.get_context("fork").Pool(chosen.processes) as pool:
        table = tabulate(pool.map(_study, seeds, chunksize=2))
    text = json.dumps({"seed": chosen.seed} | table, indent=2)
    sys.stdout.write(text + "\n")
    if chosen.json:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
