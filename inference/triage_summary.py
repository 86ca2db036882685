"""Delays of a replay as numbers: by class and category, with intervals, unread exams, harm, and a threshold sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.triage import (
    ARMS,
    HOURS_A_DAY,
    Exams,
    Floats,
    Protocol,
    auc,
    delays_days,
    end_of,
    keys_of,
    replay,
)

QUANTILES = (0.25, 0.5, 0.75, 0.95)
SWEEP = tuple(round(0.05 * step, 2) for step in range(1, 20))
_CATEGORY = "category:"
Group = dict[str, Any]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def simulate(
    exams: Exams, slots_h: Floats, protocol: Protocol, on_step: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Replay all arms and sum them up as JSON values (docs/triage.md explains each).

    ``on_step`` is called with the arm's name after each replay, for a progress bar.
    """
    rng = np.random.default_rng(protocol.seed)
    end_h, groups = end_of(exams, slots_h), _groups(exams, protocol)
    weeks = _weeks(exams)
    delays = {"historical": delays_days(exams, exams.reported_h, end_h)}
    unread = {"historical": np.isnan(exams.reported_h)}
    draws: dict[str, list[list[float]]] = {}  # of each arm's draws the mean of each group
    for arm, key in keys_of(exams, protocol, rng).items():
        guard_h = protocol.max_wait_days * HOURS_A_DAY if arm == "model" else float("inf")
        for _ in range(protocol.random_draws if arm == "random" else 1):
            read_h = replay(exams.acquired_h, slots_h, key(), guard_h)
            delays[arm], unread[arm] = delays_days(exams, read_h, end_h), np.isnan(read_h)
            draws.setdefault(arm, []).append(
                [float(delays[arm][m].mean()) if m.any() else 0.0 for m in groups.values()]
            )
            on_step(arm)
    arms = {}
    for arm in ARMS:
        means = np.array(draws.get(arm, []))
        found = {
            name: _group(delays[arm][m], weeks[m], means[:, i] if len(means) > 1 else None, protocol, rng)
            for i, (name, m) in enumerate(groups.items())
        }
        arms[arm] = _arm(found, unread[arm], groups)
    return {
        "exams": len(exams),
        "reading_slots": len(slots_h),
        "auc": auc(exams),
        "threshold": protocol.threshold,
        "arms": arms,
        "harm": _harm(delays, groups),
        "model_against_random": _against_random(draws, list(groups).index("abnormal")),
        "sweep": sweep(exams, slots_h, protocol),
    }


def sweep(exams: Exams, slots_h: Floats, protocol: Protocol, thresholds: tuple[float, ...] = SWEEP) -> list[Group]:
    """Two classes of urgency for each threshold: what is flagged, found and missed, and who waits how long."""
    p, end_h = np.nan_to_num(exams.probability, nan=0.5), end_of(exams, slots_h)
    rows = []
    for threshold in thresholds:
        groups = _groups(exams, replace(protocol, threshold=threshold))
        read_h = replay(exams.acquired_h, slots_h, -(p >= threshold).astype(float))
        days = delays_days(exams, read_h, end_h)
        abnormal, normal, missed = groups["abnormal"], groups["normal"], groups["missed_abnormal"]
        flagged = p >= threshold
        rows.append(
            {
                "threshold": threshold,
                "flagged": _mean(flagged[groups["all"]]),
                "sensitivity": _mean(flagged[abnormal]),
                "specificity": _mean(~flagged[normal]),
                "abnormal_mean_days": _mean(days[abnormal]),
                "normal_mean_days": _mean(days[normal]),
                "missed_abnormal": int(missed.sum()),
                "missed_abnormal_mean_days": _mean(days[missed]),
                "unread": int(np.isnan(read_h).sum()),
            }
        )
    return rows


def _groups(exams: Exams, protocol: Protocol) -> dict[str, Bools]:
    """Who is counted where; categories are prefixed "category:"."""
    abnormal = np.asarray(exams.abnormal > 0.5)
    groups: dict[str, Bools] = {
        "all": np.ones(len(exams), bool),
        "abnormal": abnormal,
        "normal": np.asarray(exams.abnormal < 0.5),
        "missed_abnormal": abnormal & (np.nan_to_num(exams.probability, nan=1.0) < protocol.threshold),
    }
    names = np.array(exams.category, dtype=object)
    for name in sorted({c for c in exams.category if c}):
        groups[f"{_CATEGORY}{name}"] = np.asarray(names == name, bool)
    return groups


def _arm(found: dict[str, Group], unread: Bools, groups: dict[str, Bools]) -> dict[str, Any]:
    """One arm's numbers, categories apart."""
    return {
        **{name: group for name, group in found.items() if not name.startswith(_CATEGORY)},
        "categories": {name[len(_CATEGORY) :]: group for name, group in found.items() if name.startswith(_CATEGORY)},
        "unread": int((unread & groups["all"]).sum()),
        "unread_abnormal": int((unread & groups["abnormal"]).sum()),
    }


def _group(days: Floats, weeks: Ints, draws: Floats | None, protocol: Protocol, rng: np.random.Generator) -> Group:
    """Mean, interval and quantiles of a group's delays. Over several draws: their mean, and the spread of the draws."""
    if len(days) == 0:
        return {"n": 0, "mean_days": None, "ci": [None, None], "quantiles": {}}
    if draws is not None:
        mean, (low, high) = float(draws.mean()), np.quantile(draws, [0.025, 0.975])
    else:
        mean, (low, high) = float(days.mean()), _bootstrap_by_week(days, weeks, protocol.resamples, rng)
    return {
        "n": len(days),
        "mean_days": mean,
        "ci": [float(low), float(high)],
        "quantiles": {str(q): float(np.quantile(days, q)) for q in QUANTILES},
    }


def _bootstrap_by_week(days: Floats, weeks: Ints, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean. Whole weeks are drawn, since exams of one week share one queue."""
    _, index = np.unique(weeks, return_inverse=True)
    sums, counts = np.bincount(index, days), np.bincount(index).astype(float)
    blocks = len(sums)
    drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), resamples)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), [0.025, 0.975])
    return float(low), float(high)


def _weeks(exams: Exams) -> Ints:
    weeks: Ints = ((exams.acquired_h - exams.acquired_h[0]) // (7 * HOURS_A_DAY)).astype(np.int64)
    return weeks


def _harm(delays: dict[str, Floats], groups: dict[str, Bools]) -> dict[str, Any]:
    """How many days later (negative: earlier) the model has each group read: on average, and the worst twentieth."""
    harm: dict[str, Any] = {}
    for name in ("normal", "missed_abnormal", "abnormal"):
        members = groups[name]
        if members.any():
            later = delays["model"][members] - delays["fifo"][members]
            harm[name] = {"mean_days_later_than_fifo": float(later.mean()), "p95": float(np.quantile(later, 0.95))}
    return harm


def _against_random(draws: dict[str, list[list[float]]], abnormal: int) -> dict[str, Any]:
    """Share of random orders in which abnormal exams wait no longer than under the model (one-sided p)."""
    model, random = draws["model"][0][abnormal], [means[abnormal] for means in draws.get("random", [])]
    as_good = sum(mean <= model for mean in random)
    return {"draws": len(random), "p": (as_good + 1) / (len(random) + 1)}


def _mean(values: Floats | Bools) -> float | None:
    return float(np.mean(values)) if len(values) else None
