"""How good a model is on studies with known labels: figures with bootstrap intervals, by group, between sites.

Intervals resample patients, not studies (a patient's studies are alike), and where two things are compared, both on
the same resample (paired).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from inference.calibration import expected_calibration_error, ppv_at, reliability_curve

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
BOOTSTRAPS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One study: what is known of it, and what the model and the baselines say.

    Attributes
    ----------
    name, patient
        Name pairs cases of two sites, else patient does; patient groups them (hashes, or UIDs: no patient data).
    label
        True: present. ``kinds``: the sub-labels that are present.
    probability
        None when the model declined.
    slice_labels, slice_probabilities
        Same length; NaN label: unknown.
    pointed
        Whether the heatmap's peak lies on a labelled slice (on the lesion, where outlines are known); None: no answer.
    groups
        ``vendor``, ``thickness`` and the like, for the breakdown.
    baselines
        Score of each baseline; higher means more suspicious.
    """

    name: str
    patient: str
    label: bool
    probability: float | None
    kinds: tuple[str, ...] = ()
    slice_labels: tuple[float, ...] = ()
    slice_probabilities: tuple[float, ...] = ()
    pointed: bool | None = None
    groups: dict[str, str] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve (Mann-Whitney, ties count half); NaN when one class is absent."""
    y, s = np.asarray(labels, bool), np.asarray(scores, np.float64)
    positive, negative = int(y.sum()), int((~y).sum())
    if not positive or not negative:
        return float("nan")
    _, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return float((rank[y].sum() - positive * (positive + 1) / 2) / (positive * negative))


def rates(labels: npt.ArrayLike, called: npt.ArrayLike) -> dict[str, float]:
    """Sensitivity, specificity, PPV, NPV, F1, accuracy of binary calls; NaN where undefined."""
    y, c = np.asarray(labels, bool), np.asarray(called, bool)
    tp, fp, fn, tn = (float(v.sum()) for v in (y & c, ~y & c, y & ~c, ~y & ~c))

    def share(part: float, whole: float) -> float:
        return part / whole if whole else float("nan")

    return {
        "sensitivity": share(tp, tp + fn),
        "specificity": share(tn, tn + fp),
        "ppv": share(tp, tp + fp),
        "npv": share(tn, tn + fn),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "accuracy": share(tp + tn, tp + fp + fn + tn),
    }


def bootstrap(
    groups: Sequence[str], figure: Callable[[npt.NDArray[np.int64]], float], *, draws: int = BOOTSTRAPS, seed: int = 0
) -> Interval:
    """95 % percentile interval of ``figure(indices)`` over resampled groups; NaNs when it is never defined."""
    rng = np.random.default_rng(seed)
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(inverse == g) for g in range(int(inverse.max()) + 1)] if len(inverse) else []
    if not members:
        return float("nan"), float("nan")
    single = all(len(m) == 1 for m in members)
    flat = np.concatenate(members)
    values = []
    for _ in range(draws):
        chosen = rng.integers(0, len(members), len(members))
        values.append(figure(flat[chosen] if single else np.concatenate([members[g] for g in chosen])))
    found = np.array(values)[~np.isnan(values)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def evaluate(
    cases: Sequence[Case], *, threshold: float, prevalence: float | None = None, draws: int = BOOTSTRAPS
) -> dict[str, object]:
    """All figures of a set of cases; see docs/training.md for their meaning.

    Studies on which the model declined are counted (``undetermined``) and left out of the figures.
    """
    answered = [c for c in cases if c.probability is not None]
    figures = _figures(answered, threshold, prevalence, draws)
    undetermined = len(cases) - len(answered)
    slices = [(lab, p) for c in answered for lab, p in zip(c.slice_labels, c.slice_probabilities, strict=True)]
    known = [(lab, p) for lab, p in slices if not np.isnan(lab)]
    pointed = [c.pointed for c in answered if c.pointed is not None]
    figures |= {
        "undetermined": undetermined,
        "threshold": threshold,
        "slice_auc": auc([lab > 0.5 for lab, _ in known], [p for _, p in known]),
        "slices": len(known),
        "pointing_hit_rate": float(np.mean(pointed)) if pointed else float("nan"),
        "pointed": len(pointed),
        "baseline": {name: _baseline(answered, name, draws) for name in _baselines(answered)},
        "by": _by(answered, threshold, draws),
    }
    return figures


def _figures(cases: Sequence[Case], threshold: float, prevalence: float | None, draws: int) -> dict[str, object]:
    labels = np.array([c.label for c in cases], bool)
    p = np.array([c.probability for c in cases], np.float64)
    patients = [c.patient for c in cases]
    called = p >= threshold
    found: dict[str, object] = {"n": len(cases), "positives": int(labels.sum()), "auc": auc(labels, p)}
    found["auc_ci"] = bootstrap(patients, lambda i: auc(labels[i], p[i]), draws=draws)
    for name, value in rates(labels, called).items():
        found[name] = value
        found[f"{name}_ci"] = bootstrap(patients, lambda i, name=name: rates(labels[i], called[i])[name], draws=draws)  # type: ignore[misc]
    if 0 < labels.sum() < len(labels):
        found["calibration_error"] = expected_calibration_error(p, labels)
        found["reliability"] = reliability_curve(p, labels)
        if prevalence is not None:
            rate = rates(labels, called)
            found["prevalence"] = prevalence
            found["ppv_at_prevalence"] = float(ppv_at(rate["sensitivity"], 1 - rate["specificity"], prevalence))
    return found


def _baselines(cases: Sequence[Case]) -> list[str]:
    return sorted({name for c in cases for name in c.baselines})


def _baseline(cases: Sequence[Case], name: str, draws: int) -> dict[str, object]:
    """AUC of a baseline on the same cases, and how much better the model is (paired)."""
    kept = [c for c in cases if name in c.baselines]
    labels = np.array([c.label for c in kept], bool)
    scores = np.array([c.baselines[name] for c in kept])
    p = np.array([c.probability for c in kept], np.float64)
    patients = [c.patient for c in kept]
    return {
        "auc": auc(labels, scores),
        "auc_ci": bootstrap(patients, lambda i: auc(labels[i], scores[i]), draws=draws),
        "model_minus_baseline": auc(labels, p) - auc(labels, scores),
        "model_minus_baseline_ci": bootstrap(
            patients, lambda i: auc(labels[i], p[i]) - auc(labels[i], scores[i]), draws=draws
        ),
    }


def _by(cases: Sequence[Case], threshold: float, draws: int) -> dict[str, dict[str, dict[str, object]]]:
    """The main figures in each group, and for each kind (its positives against all negatives)."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for key in sorted({k for c in cases for k in c.groups}):
        for value in sorted({c.groups.get(key, "") for c in cases}):
            members = [c for c in cases if c.groups.get(key, "") == value]
            found.setdefault(key, {})[value or "unknown"] = _short(members, threshold, draws)
    negatives = [c for c in cases if not c.label]
    for kind in sorted({k for c in cases for k in c.kinds}):
        members = negatives + [c for c in cases if c.label and kind in c.kinds]
        found.setdefault("kind", {})[kind] = _short(members, threshold, draws)
    return found


def _short(cases: Sequence[Case], threshold: float, draws: int) -> dict[str, object]:
    labels = np.array([c.label for c in cases], bool)
    p = np.array([c.probability for c in cases], np.float64)
    rate = rates(labels, p >= threshold)
    return {
        "n": len(cases),
        "positives": int(labels.sum()),
        "auc": auc(labels, p),
        "auc_ci": bootstrap([c.patient for c in cases], lambda i: auc(labels[i], p[i]), draws=max(200, draws // 4)),
        "sensitivity": rate["sensitivity"],
        "specificity": rate["specificity"],
    }


def _answered(cases: Sequence[Case], key: str) -> dict[str, Case]:
    return {str(getattr(c, key)): c for c in cases if c.probability is not None}


def delta_auc(first: Sequence[Case], second: Sequence[Case], *, draws: int = BOOTSTRAPS) -> dict[str, object]:
    """Difference of AUC between two sites, with its interval.

    Paired when both show the same cases (by name), or the same patients once each: two scanners' series of one head.
    Each site is judged by its own labels: a lesion that only one scanner shows is no finding on the other.
    """
    one, two = _answered(first, "name"), _answered(second, "name")
    if not set(one) & set(two):
        by_patient = _answered(first, "patient"), _answered(second, "patient")
        if (len(by_patient[0]), len(by_patient[1])) == (len(one), len(two)) and set(by_patient[0]) & set(by_patient[1]):
            one, two = by_patient
    both = sorted(set(one) & set(two))
    paired = len(both) >= 0.9 * max(len(one), len(two))
    if paired:
        truth_a, truth_b = (np.array([table[n].label for n in both], bool) for table in (one, two))
        a, b = (np.array([table[n].probability for n in both], np.float64) for table in (one, two))
        patients = [one[n].patient for n in both]
        difference = auc(truth_a, a) - auc(truth_b, b)
        interval = bootstrap(patients, lambda i: auc(truth_a[i], a[i]) - auc(truth_b[i], b[i]), draws=draws)
        return {"delta_auc": difference, "ci": interval, "paired": True, "n": len(both)}
    cases = [*one.values(), *two.values()]
    labels = np.array([c.label for c in cases], bool)
    p = np.array([c.probability for c in cases], np.float64)
    site = np.arange(len(cases)) < len(one)

    def difference_of(i: npt.NDArray[np.int64]) -> float:
        here = site[i]
        return auc(labels[i][here], p[i][here]) - auc(labels[i][~here], p[i][~here])

    interval = bootstrap([c.patient for c in cases], difference_of, draws=draws)
    return {"delta_auc": difference_of(np.arange(len(cases))), "ci": interval, "paired": False, "n": len(cases)}


def mcnemar(truth: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> dict[str, float]:
    """Exact McNemar test of two readers on the same cases: does one make more errors where they differ?"""
    t, a, b = (np.asarray(v, bool) for v in (truth, first, second))
    only_first, only_second = int(((a == t) & (b != t)).sum()), int(((a != t) & (b == t)).sum())
    n = only_first + only_second
    p = float(binomtest(only_first, n).pvalue) if n else 1.0
    return {"first_right_second_wrong": only_first, "first_wrong_second_right": only_second, "p_value": p}
