"""How well report labels agree with a labelled set: AUC per label with bootstrap intervals, decisions, length bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from inference.labels import REPORT_LABELS

Floats = npt.NDArray[np.float64]
_ROUNDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelResult:
    """One label: counts of the reference, AUC with its 95 % bootstrap interval, and what the decisions got right."""

    positives: int
    negatives: int
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    sensitivity: float | None = None
    specificity: float | None = None
    f1: float | None = None
    accuracy: float | None = None
    abstained: int = 0


def auc_interval(reference: Floats, scores: Floats, seed: int = 1) -> tuple[float, float, float]:
    """AUC (Mann-Whitney) and its 95 % percentile interval over resampled reports, by class; needs both classes."""
    rng = np.random.default_rng(seed)
    positive, negative = scores[reference == 1], scores[reference == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    drawn_positive = rng.multinomial(positive.size, np.full(positive.size, 1 / positive.size), _ROUNDS) / positive.size
    drawn_negative = rng.multinomial(negative.size, np.full(negative.size, 1 / negative.size), _ROUNDS) / negative.size
    drawn = ((drawn_positive @ wins) * drawn_negative).sum(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(wins.mean()), float(low), float(high)


def evaluate(
    references: Sequence[Mapping[str, int | None]],
    scores: Floats,
    decisions: Sequence[Mapping[str, int | None]] | None = None,
) -> dict[str, LabelResult]:
    """Compare scores ``[reports, 10]`` (any monotone scale) and optional decisions with reference labels.

    A reference of None leaves that report out for that label; a label without both classes has no AUC.
    """
    results: dict[str, LabelResult] = {}
    for column, label in enumerate(REPORT_LABELS):
        truth = np.array([np.nan if row.get(label) is None else float(row[label] or 0) for row in references])
        known = ~np.isnan(truth)
        reference, values = truth[known], scores[known, column]
        positives, negatives = int((reference == 1).sum()), int((reference == 0).sum())
        both = positives > 0 and negatives > 0
        auc, low, high = auc_interval(reference, values) if both else (None, None, None)
        made = [row[label] for row, keep in zip(decisions, known, strict=True) if keep] if decisions else []
        ranked = LabelResult(positives=positives, negatives=negatives, auc=auc, auc_low=low, auc_high=high)
        results[label] = _with_decisions(ranked, reference, made)
    return results


def _with_decisions(ranked: LabelResult, reference: Floats, decisions: Sequence[int | None]) -> LabelResult:
    decided = [(bool(truth), bool(said)) for truth, said in zip(reference, decisions, strict=False) if said is not None]
    if not decided:
        return replace(ranked, abstained=len(decisions))
    true_positive = sum(truth and said for truth, said in decided)
    true_negative = sum(not truth and not said for truth, said in decided)
    wrong = len(decided) - true_positive - true_negative
    positives = sum(truth for truth, _ in decided)
    return replace(
        ranked,
        sensitivity=true_positive / positives if positives else None,
        specificity=true_negative / (len(decided) - positives) if len(decided) > positives else None,
        f1=2 * true_positive / (2 * true_positive + wrong) if true_positive + wrong else None,
        accuracy=(true_positive + true_negative) / len(decided),
        abstained=len(decisions) - len(decided),
    )


def length_bias(abnormal_scores: Floats, abnormal: Floats, words: Sequence[int]) -> float:
    """Rank correlation between the score for `abnormal` and the number of words, among the normal reports."""
    normal = abnormal == 0
    return float(spearmanr(abnormal_scores[normal], np.asarray(words)[normal]).statistic)


def as_json(results: Mapping[str, LabelResult]) -> dict[str, dict[str, float | int | None]]:
    """Rounded for a record file."""
    return {
        label: {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(result).items()}
        for label, result in results.items()
    }


def mean_auc(results: Mapping[str, LabelResult]) -> float:
    """Mean over the labels that have an AUC."""
    return float(np.mean([result.auc for result in results.values() if result.auc is not None]))
