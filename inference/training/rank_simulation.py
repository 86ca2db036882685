"""The reader study of Zaman 2023 played on synthetic heads: ranking by eights against one slice at a time.

Same hours, same slices, same readers, same network and training (those of `falx train slices`), same test set; only
the way of labelling differs.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from inference.slice_level import LEVEL_UNIT_MM
from inference.training.rank_readers import (
    Bought,
    Perception,
    draw_reader,
    fit_perception,
    label_by_ranking,
    label_one_at_a_time,
    with_noise,
)
from inference.training.slice_heads import draw_head_slices
from inference.training.slice_level_data import SliceExamples
from inference.training.train_slices import train as train_network

Array = npt.NDArray[np.float64]
Images = npt.NDArray[np.float32]

HOURS = 5.0
READERS = 3
CUTS_MM = (-22.0, 30.0)
UNIT_MM = 50.0  # readers' noise is fitted in this unit; it has no meaning of its own
TEST_HEADS = 60
EPOCHS = 6
NOISES = {"fitted": 1.0, "half": 0.5, "double": 2.0}
Say = Callable[[str], None]
Scores = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Pictures ``[n, 1, 64, 64]`` with their true position and class."""

    images: Images
    truth: Array

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """True classes: below, middle, above."""
        return np.searchsorted(np.array(CUTS_MM) / UNIT_MM, self.truth).astype(np.int64)


def simulate(
    *,
    seeds: int = 5,
    slices: int = 3320,
    hours: float = HOURS,
    epochs: int = EPOCHS,
    test_heads: int = TEST_HEADS,
    jobs: int = 1,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Play the study; see docs/ranking.md for the fields of the result.

    Parameters
    ----------
    seeds
        Repetitions, each with its own heads, readers, noise and network weights.
    slices
        Slices to be labelled.
    hours
        Labelling time of each strategy, all readers together.
    jobs
        Repetitions played at the same time.
    say
        Told of the progress, in words.
    """
    test = _draw(range(10_000, 10_000 + test_heads), None)
    cuts = np.array(CUTS_MM) / UNIT_MM
    perception = fit_perception(test.truth, cuts)
    say(f"noise {perception.noise:.3f}, spread {perception.spread:.3f} give kappa 0.90 within, 0.77 between readers")
    studies = _play(seeds, jobs, _Study(test, cuts, perception, slices, hours, epochs), say)
    runs = {
        noise: {strategy: [study[noise][strategy] for study in studies] for strategy in ("ranking", "single")}
        for noise in NOISES
    }
    facts = {"seeds": seeds, "slices": slices, "test_slices": len(test.truth), "hours_per_strategy": hours}
    perfect = _mean([study["none"]["true_labels"] for study in studies])
    return _report(runs, perception, facts | {"true_labels": perfect})


@dataclass(frozen=True, slots=True)
class _Study:
    """What all repetitions share."""

    test: Slices
    cuts: Array
    perception: Perception
    slices: int
    hours: float
    epochs: int

    def repeat(self, seed: int) -> dict[str, dict[str, Scores]]:
        """One repetition: scores by noise and strategy."""
        train = _draw(range(1000 * seed, 1000 * seed + 1000), self.slices)
        perfect = _train_and_test(train, _without_readers(train), self.test, seed, self.epochs)
        scores = {"none": {"true_labels": perfect}}
        for noise, factor in NOISES.items():
            bought = _label(train, with_noise(self.perception, factor), self.cuts, self.hours, seed)
            scores[noise] = {
                strategy: _train_and_test(train, labels, self.test, seed, self.epochs)
                for strategy, labels in bought.items()
            }
        return scores


def _play(seeds: int, jobs: int, study: _Study, say: Say) -> list[dict[str, dict[str, Scores]]]:
    """All repetitions, in processes of their own when ``jobs`` > 1."""
    if jobs == 1:
        studies = []
        for seed in range(seeds):
            studies.append(study.repeat(seed))
            _tell(seed, studies[-1], say)
        return studies
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        running = {pool.submit(study.repeat, seed): seed for seed in range(seeds)}
        for done in as_completed(running):
            _tell(running[done], done.result(), say)
        return [one.result() for one in running]


def _tell(seed: int, scores: dict[str, dict[str, Scores]], say: Say) -> None:
    for noise, by_strategy in scores.items():
        for strategy, one in by_strategy.items():
            say(f"seed {seed}, {noise} noise, {strategy}: accuracy {one['accuracy']:.3f}")


def _draw(head_seeds: range, slices: int | None) -> Slices:
    """Draw heads until there are ``slices`` slices (None: all heads)."""
    images, truth, count = [], [], 0
    for seed in head_seeds:
        head = draw_head_slices(seed)
        rng = np.random.default_rng([seed, 91])
        shift = rng.integers(-3, 4, 2)
        noisy = head.hu + rng.uniform(2, 8) * rng.normal(size=head.hu.shape)
        shown = np.clip((noisy + 60) / 240, 0, 1).astype(np.float32)
        images.append(np.roll(shown, shift, axis=(1, 2))[:, None])
        truth.append(head.level_mm / UNIT_MM)
        count += len(head.level_mm)
        if slices is not None and count >= slices:
            break
    return Slices(images=np.concatenate(images)[:slices], truth=np.concatenate(truth)[:slices])


def _label(train: Slices, perception: Perception, cuts: Array, hours: float, seed: int) -> dict[str, Bought]:
    rng = np.random.default_rng([seed, 92])
    readers = [draw_reader(rng, perception, cuts) for _ in range(READERS)]
    seconds = hours * 3600
    return {
        "ranking": label_by_ranking(rng, train.truth, readers, seconds),
        "single": label_one_at_a_time(rng, train.truth, readers, seconds),
    }


def _train_and_test(train: Slices, bought: Bought, test: Slices, seed: int, epochs: int) -> Scores:
    """Train as `falx train slices` does, on classes and scale together; test the classes."""
    examples = SliceExamples(
        pictures=_two_channels(train.images),
        classes=torch.from_numpy(bought.labels),
        level_mm=torch.from_numpy(bought.positions).float() * LEVEL_UNIT_MM,
    )
    used = bought.labels >= 0
    network = train_network(examples, len(CUTS_MM) + 1, epochs=epochs, seed=seed, say=lambda _: None)
    with torch.inference_mode():
        chance = network(_two_channels(test.images).float())[0].softmax(dim=1).numpy()
    truth, said = test.classes, chance.argmax(axis=1)
    return {
        "accuracy": float((said == truth).mean()),
        "f1": float(f1_score(truth, said, average="macro")),
        "auc": float(roc_auc_score(truth, chance, multi_class="ovr", average="macro")),
        "labels": float(used.sum()),
        "placed": float(np.isfinite(bought.positions).sum()),
        "views": float(bought.views),
        "label_accuracy": float((bought.labels[used] == train.classes[used]).mean()),
    }


def _two_channels(images: Images) -> torch.Tensor:
    """As the network reads them: grey value, and that it is CT."""
    grey = torch.from_numpy(images)
    return torch.cat([grey, torch.ones_like(grey)], dim=1)


def _without_readers(train: Slices) -> Bought:
    """The true classes and positions: what the network could learn from readers who are never wrong."""
    positions = (train.truth - train.truth.mean()) / train.truth.std()
    return Bought(labels=train.classes, positions=positions, views=0, seconds=0.0)


def _report(runs: dict[str, dict[str, list[Scores]]], perception: Perception, facts: dict[str, Any]) -> dict[str, Any]:
    by_noise = {
        noise: {strategy: _mean(scores) for strategy, scores in both.items()}
        | {"difference": _difference(both["ranking"], both["single"])}
        for noise, both in runs.items()
    }
    single_wins = [noise for noise, both in by_noise.items() if both["difference"]["accuracy"] < 0]
    return {
        **{strategy: by_noise["fitted"][strategy] for strategy in ("ranking", "single")},
        "difference": by_noise["fitted"]["difference"],
        **facts,
        "readers": READERS,
        "perception": {"noise": perception.noise, "spread": perception.spread, "kappa": "Cohen, unweighted"},
        "noise": {name: by_noise[name] for name in ("half", "double")},
        "single_labelling_wins_at": single_wins,
        "note": "Synthetic heads, simulated readers. Zaman 2023 (cardiac MR, three experts): 0.86 against 0.72.",
    }


def _mean(scores: list[Scores]) -> dict[str, Any]:
    """Means over the seeds with 95 % intervals (Student's t)."""
    out: dict[str, Any] = {name: round(float(np.mean([s[name] for s in scores])), 4) for name in scores[0]}
    for name in ("accuracy", "f1", "auc"):
        out[f"{name}_ci"] = _interval([s[name] for s in scores])
    return {**out, **{name: int(out[name]) for name in ("labels", "placed", "views")}}


def _difference(ranking: list[Scores], single: list[Scores]) -> dict[str, Any]:
    gaps = [a["accuracy"] - b["accuracy"] for a, b in zip(ranking, single, strict=True)]
    return {"accuracy": round(float(np.mean(gaps)), 4), "accuracy_ci": _interval(gaps)}


def _interval(values: list[float]) -> list[float] | None:
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return [round(float(np.mean(values)) - half, 4), round(float(np.mean(values)) + half, 4)]
