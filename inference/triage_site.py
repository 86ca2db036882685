"""A site with known truth, for tests and for planning: exams arrive, are read with a backlog, and a model scores them.

Knows no files; parameters are explained in ``triage_sites.yaml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from inference.triage import HOURS_A_DAY, Exams, Floats, replay

MONDAY = "2024-01-01T00:00:00"  # hour 0 of every generated site


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Parameters of a site; shares and weights are relative, spreads as said in triage_sites.yaml."""

    days: int
    exams_a_day: float
    arrivals_by_weekday: tuple[float, ...]
    scanner_hours: tuple[int, int]
    reading_hours: tuple[int, int]
    reading_by_weekday: tuple[float, ...]
    reading_spread: float
    backlog_days: float
    backlog_response: float
    order_spread_days: float
    abnormal_share: float
    auc: float
    categories: dict[str, float]

    def __post_init__(self) -> None:
        checks = {
            "days must be 1 or more": self.days >= 1,
            "exams_a_day must be above 0": self.exams_a_day > 0,
            "arrivals_by_weekday needs 7 values": len(self.arrivals_by_weekday) == 7,
            "reading_by_weekday needs 7 values, not all 0": len(self.reading_by_weekday) == 7
            and sum(self.reading_by_weekday) > 0,
            "scanner_hours and reading_hours need an hour below a later one, 0 to 24": all(
                0 <= a < b <= 24 for a, b in (self.scanner_hours, self.reading_hours)
            ),
            "abnormal_share must lie between 0 and 1": 0 < self.abnormal_share < 1,
            "auc must lie between 0.5 and 1": 0.5 <= self.auc < 1,
            "categories must not be empty": len(self.categories) > 0,
        }
        wrong = [text for text, holds in checks.items() if not holds]
        if wrong:
            raise ValueError("; ".join(wrong))


def generate(site: Site, seed: int) -> Exams:
    """Draw a site's exams with their historical reports; the same seed gives the same exams."""
    rng = np.random.default_rng(seed)
    acquired_h = _arrivals(site, rng)
    abnormal = (rng.random(len(acquired_h)) < site.abnormal_share).astype(float)
    slots_h = _reading_slots(site, acquired_h, rng)
    place = acquired_h + rng.exponential(site.order_spread_days * HOURS_A_DAY, len(acquired_h))
    return Exams(
        acquired_h=acquired_h,
        reported_h=replay(acquired_h, slots_h, place),
        abnormal=abnormal,
        probability=_probabilities(site, abnormal, rng),
        category=_categories(site, abnormal, rng),
    )


def _arrivals(site: Site, rng: np.random.Generator) -> Floats:
    """Poisson arrivals a day, even over the scanner's hours; a backlog is there at the start."""
    weights = np.array(site.arrivals_by_weekday) * 7 / sum(site.arrivals_by_weekday)
    first, last = site.scanner_hours
    times = []
    for day in range(site.days):
        n = rng.poisson(site.exams_a_day * weights[day % 7])
        times.append(day * HOURS_A_DAY + rng.uniform(first, last, n))
    return np.sort(np.concatenate(times))


def _reading_slots(site: Site, acquired_h: Floats, rng: np.random.Generator) -> Floats:
    """Slots of each day: gamma-spread capacity that follows the backlog, which starts at its usual size.

    The first ``backlog_days`` read nothing: that is how the backlog gets there.
    """
    weights = np.array(site.reading_by_weekday) * 7 / sum(site.reading_by_weekday)
    first, last = site.reading_hours
    usual = site.backlog_days * site.exams_a_day
    shape = 1 / max(site.reading_spread, 1e-6) ** 2
    read = 0
    slots = []
    for day in range(int(site.backlog_days), site.days):
        arrived = int(np.searchsorted(acquired_h, day * HOURS_A_DAY + last))
        backlog = arrived - read
        pull = 1 + site.backlog_response * (backlog - usual) / usual
        wanted = site.exams_a_day * weights[day % 7] * max(pull, 0.0) * rng.gamma(shape, 1 / shape)
        n = min(int(rng.poisson(wanted)), int(np.searchsorted(acquired_h, day * HOURS_A_DAY + first)) - read)
        read += max(n, 0)
        slots.append(day * HOURS_A_DAY + np.sort(rng.uniform(first, last, max(n, 0))))
    return np.concatenate(slots)


def _probabilities(site: Site, abnormal: Floats, rng: np.random.Generator) -> Floats:
    """Scores of the wanted AUC: two normal distributions of equal spread, turned into probabilities by Bayes' rule."""
    distance = np.sqrt(2) * NormalDist().inv_cdf(site.auc)
    score = rng.normal(0, 1, len(abnormal)) + distance * abnormal
    prior = np.log(site.abnormal_share / (1 - site.abnormal_share))
    probability: Floats = 1 / (1 + np.exp(-(prior + distance * score - distance**2 / 2)))
    return probability


def _categories(site: Site, abnormal: Floats, rng: np.random.Generator) -> tuple[str, ...]:
    names = list(site.categories)
    shares = np.array(list(site.categories.values()))
    drawn = rng.choice(len(names), len(abnormal), p=shares / shares.sum())
    return tuple(names[c] if a > 0.5 else "" for c, a in zip(drawn, abnormal, strict=True))
