"""Do study labels suffice? ``python benchmarks/ablation_ct.py`` (``make ablation``)

Three ways to train the haemorrhage model on the same reduced synthetic cohort, three seeds each, the same test heads:

- image-level only: stage 1 alone; a study's score is its most suspicious slice
- study-level only: the whole network from study labels, nothing known of any slice
- both: stage 1 on one half's slice labels, stage 2 on the other half's study labels (the shipped recipe)

No arm sees blood masks. Each finished run is kept under ``cache/ablation``; a killed command goes on with the next one.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from inference.haemorrhage_net import HaemorrhageNetwork, network_of
from inference.training.ct_augment import augment, gather
from inference.training.ct_cache import PreparedStudy, fill_cache, generator_hash, load_prepared
from inference.training.evaluation import auc
from inference.training.fit_ct import predict
from inference.training.loop import clip_gradients
from inference.training.train_ct import (
    CtSettings,
    architecture,
    encode,
    study_features,
    study_loss,
    train_slices,
    train_study,
)

ARMS = ("image-level only", "study-level only", "both")
SEEDS = (0, 1, 2)
TRAINING, TEST = range(80), range(2_000, 2_060)  # heads that `make models` draws too: one cache serves both
CPU = torch.device("cpu")


def without_masks(studies: list[PreparedStudy]) -> list[PreparedStudy]:
    """The same studies with nothing known of where the blood is."""
    return [replace(s, blood=None) for s in studies]


def train_end_to_end(network: HaemorrhageNetwork, studies: list[PreparedStudy], settings: CtSettings) -> None:
    """Study labels alone: every step reads two whole studies and updates encoder and attention together."""
    torch.manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = max(1, settings.steps * settings.batch // 54)  # as many slices as the other arms read
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps + 1)
    network.train()
    for step in range(steps):
        rng = np.random.default_rng([settings.seed, 74, step])
        chosen = [studies[int(i)] for i in rng.choice(len(studies), 2, replace=False)]
        features = [
            encode(network, augment(gather([s], [(0, z) for z in range(len(s.hu))]), rng), CPU)[2] for s in chosen
        ]
        loss = study_loss(network, features, torch.from_numpy(np.stack([s.labels for s in chosen])))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(network, 5.0)
        optimiser.step()
        schedule.step()


def run(arm: str, seed: int, training: list[PreparedStudy], test: list[PreparedStudy], steps: int, work: Path) -> dict:
    """Train one arm with one seed; study and slice AUC on the test heads."""
    settings = CtSettings(seed=seed, steps=steps)
    torch.manual_seed(seed)
    network = network_of(architecture(settings))
    half = len(training) // 2
    if arm == "study-level only":
        train_end_to_end(network, training, settings)
    else:
        checkpoint = work / f"{arm}-{seed}.pt".replace(" ", "-")
        train_slices(network, training if arm == "image-level only" else training[:half], settings, checkpoint)
        checkpoint.unlink(missing_ok=True)
    if arm == "both":
        features = [[study_features(network, s, CPU)[0]] for s in training[half:]]
        train_study(network, features, np.stack([s.labels for s in training[half:]]), settings)
    logits, labels, slice_logits, slice_labels = predict(network, test)
    lengths = np.cumsum([len(s.hu) for s in test])[:-1]
    score = [s.max() for s in np.split(slice_logits, lengths)] if arm == "image-level only" else logits[:, 0]
    return {
        "arm": arm,
        "seed": seed,
        "study_auc": round(auc(labels[:, 0], score), 3),
        "slice_auc": round(auc(slice_labels, slice_logits), 3) if arm != "study-level only" else None,
    }


def main() -> None:
    """Run what is not there yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.processes)
    heads = chosen.cache / "ct" / generator_hash()
    work = chosen.cache / "ablation" / f"{generator_hash()}-{chosen.steps}"
    work.mkdir(parents=True, exist_ok=True)
    training, test = (
        without_masks([load_prepared(heads, s) for s in fill_cache(heads, seeds, processes=chosen.processes)])
        for seeds in (TRAINING, TEST)
    )
    rows = []
    for arm in ARMS:
        for seed in SEEDS:
            kept = work / f"{arm}-{seed}.json".replace(" ", "-")
            if not kept.exists():
                kept.write_text(json.dumps(run(arm, seed, training, test, chosen.steps, work)))
            rows.append(json.loads(kept.read_text()))
    print(f"{len(training)} training heads, {len(test)} test heads, {chosen.steps} steps; synthetic heads")
    for arm in ARMS:
        values = [row["study_auc"] for row in rows if row["arm"] == arm]
        print(f"{arm:18} study AUC {np.mean(values):.3f}  ({', '.join(f'{v:.3f}' for v in values)})")
    if chosen.json:
        document = {"training": len(training), "test": len(test), "steps": chosen.steps, "runs": rows}
        chosen.json.write_text(json.dumps(document, indent=2) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
