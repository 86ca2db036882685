"""From a network's logit to a probability that means something, and from probabilities to thresholds.

Platt scaling: J. Platt 1999; temperature scaling and expected calibration error: Guo et al., ICML 2017. A positive
predictive value holds at one prevalence only, so it is always asked for together with a prevalence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """``probability = sigmoid(slope * logit + intercept)``; the identity with an empty id is "not calibrated"."""

    identifier: str = ""
    kind: str = "none"
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def fitted(self) -> bool:
        """False: what comes out is a bare score, and must be reported as one."""
        return self.kind != "none"

    def probability(self, logit: npt.ArrayLike) -> Array:
        """Return calibrated probabilities 0..1, same shape."""
        return sigmoid(self.slope * np.asarray(logit, np.float64) + self.intercept)


def sigmoid(x: npt.ArrayLike) -> Array:
    """Logistic function without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, np.float64))))


def fit_platt(logits: npt.ArrayLike, labels: npt.ArrayLike, identifier: str) -> Calibration:
    """Fit slope and intercept by maximum likelihood on a validation set; needs both classes."""
    x, y = _pair(logits, labels)
    slope, intercept = _logistic_fit(x, y, with_intercept=True)
    return Calibration(identifier=identifier, kind="platt", slope=slope, intercept=intercept)


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike, identifier: str) -> Calibration:
    """Fit the slope alone (1 / temperature), which leaves logit 0 at probability 0.5."""
    x, y = _pair(logits, labels)
    slope, _ = _logistic_fit(x, y, with_intercept=False)
    return Calibration(identifier=identifier, kind="temperature", slope=slope)


def threshold_for_ppv(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, target: float, prevalence: float
) -> tuple[float, dict[str, float]]:
    """Lowest-miss threshold whose PPV reaches ``target`` at ``prevalence``; the best PPV there is, when none does.

    False positives are counted with half a pseudo-count, so that a validation set with no false positive does not
    promise a PPV of 1.
    """
    table = _roc(probabilities, labels)
    ppv = ppv_at(table.sensitivity, table.smoothed_fpr, prevalence)
    reached = np.flatnonzero(ppv >= target)
    best = reached[np.argmax(table.sensitivity[reached])] if reached.size else np.argmax(ppv)
    return table.at(int(best), prevalence)


def threshold_for_sensitivity(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, target: float, prevalence: float
) -> tuple[float, dict[str, float]]:
    """Highest threshold whose sensitivity reaches ``target``."""
    table = _roc(probabilities, labels)
    return table.at(int(np.flatnonzero(table.sensitivity >= target)[0]), prevalence)


def rates_at(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, threshold: float, *, prevalence: float
) -> dict[str, float]:
    """What a threshold achieves, as the thresholds above are recorded with."""
    p, y = _pair(probabilities, labels)
    sensitivity, false = float((p[y > 0] >= threshold).mean()), float((p[y == 0] >= threshold).sum())
    negatives = float((1 - y).sum())
    return {
        "prevalence": prevalence,
        "sensitivity": sensitivity,
        "specificity": 1.0 - false / negatives,
        "ppv": float(ppv_at(sensitivity, (false + 0.5) / (negatives + 1.0), prevalence)),
    }


def ppv_at(sensitivity: npt.ArrayLike, false_positive_rate: npt.ArrayLike, prevalence: float) -> Array:
    """PPV by Bayes' rule at a prevalence 0..1; 0 where nothing is called positive."""
    true = np.asarray(sensitivity, np.float64) * prevalence
    false = np.asarray(false_positive_rate, np.float64) * (1.0 - prevalence)
    return np.asarray(np.divide(true, true + false, out=np.zeros(np.shape(true + false)), where=(true + false) > 0))


def reliability_curve(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10) -> list[dict[str, float]]:
    """Mean probability, observed frequency and count of each non-empty bin of equal width."""
    p, y = _pair(probabilities, labels)
    index = np.minimum((p * bins).astype(int), bins - 1)
    rows = []
    for b in np.unique(index):
        inside = index == b
        rows.append({"mean": float(p[inside].mean()), "observed": float(y[inside].mean()), "n": int(inside.sum())})
    return rows


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10) -> float:
    """Mean of |observed - stated| over the bins, weighted by their counts."""
    rows = reliability_curve(probabilities, labels, bins)
    total = sum(row["n"] for row in rows)
    return float(sum(row["n"] * abs(row["observed"] - row["mean"]) for row in rows) / total)


@dataclass(frozen=True, slots=True)
class _Roc:
    thresholds: Array  # descending
    sensitivity: Array
    false_positive_rate: Array
    smoothed_fpr: Array

    def at(self, index: int, prevalence: float) -> tuple[float, dict[str, float]]:
        sensitivity, fpr = float(self.sensitivity[index]), float(self.false_positive_rate[index])
        measured = {
            "prevalence": prevalence,
            "sensitivity": sensitivity,
            "specificity": 1.0 - fpr,
            "ppv": float(ppv_at(sensitivity, float(self.smoothed_fpr[index]), prevalence)),
        }
        return float(self.thresholds[index]), measured


def _roc(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> _Roc:
    """Rates at each threshold, put half-way between neighbouring probabilities so that it holds on new data."""
    p, y = _pair(probabilities, labels)
    order = np.argsort(-p, kind="stable")
    p, y = p[order], y[order]
    last = np.flatnonzero(np.append(np.diff(p) != 0, True))
    true, false = np.cumsum(y)[last], np.cumsum(1 - y)[last]
    distinct = p[last]
    below = np.append(distinct[1:], distinct[-1] / 2)
    negatives = max(float((1 - y).sum()), 1.0)
    return _Roc((distinct + below) / 2, true / y.sum(), false / negatives, (false + 0.5) / (negatives + 1.0))


def _pair(values: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(values, np.float64), np.asarray(labels, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"one label for each value is needed: {x.shape} values, {y.shape} labels")
    if not 0 < y.sum() < len(y):
        raise ValueError(f"both classes are needed: {int(y.sum())} positive of {len(y)}")
    return x, y


def _logistic_fit(x: Array, y: Array, *, with_intercept: bool) -> tuple[float, float]:
    """Newton steps on the likelihood, with Platt's softened targets, which keep separable data finite."""
    n_positive, n_negative = y.sum(), len(y) - y.sum()
    target = np.where(y > 0, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    design = np.stack([x, np.ones_like(x)], axis=1) if with_intercept else x[:, None]
    weights = np.zeros(design.shape[1])
    for _ in range(100):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - target)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(design.shape[1])
        step = np.linalg.solve(hessian, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()) / 2.0)
        if float(np.abs(step).max()) < 1e-9:
            break
    return float(weights[0]), float(weights[1]) if with_intercept else 0.0
