"""The simulated reader study: the readers' kappa, what each strategy buys, and a small run of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from inference.training.rank_readers import (
    draw_reader,
    fit_perception,
    label_by_ranking,
    label_one_at_a_time,
    with_noise,
)
from inference.training.rank_simulation import simulate

CUTS = np.array([-0.4, 0.6])


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.random.default_rng(5).uniform(-1.6, 1.6, 500)


def test_fitted_noise_gives_the_published_kappa(truth: np.ndarray) -> None:
    perception = fit_perception(truth, CUTS)
    rng = np.random.default_rng(99)
    within, between = [], []
    for _ in range(150):
        one, other = (draw_reader(rng, perception, CUTS) for _ in range(2))
        within.append(cohen_kappa_score(one.classify(rng, truth), one.classify(rng, truth)))
        between.append(cohen_kappa_score(one.classify(rng, truth), other.classify(rng, truth)))
    assert np.mean(within) == pytest.approx(0.90, abs=0.02)
    assert np.mean(between) == pytest.approx(0.77, abs=0.04)


def test_equal_hours_buy_one_label_or_three_views_a_slice(truth: np.ndarray) -> None:
    perception = fit_perception(truth, CUTS)
    rng = np.random.default_rng(1)
    readers = [draw_reader(rng, perception, CUTS) for _ in range(3)]
    seconds = 500 * 5.4
    single = label_one_at_a_time(rng, truth, readers, seconds)
    ranking = label_by_ranking(rng, truth, readers, seconds)
    assert single.seconds <= seconds
    assert ranking.seconds <= seconds
    assert single.views == 500
    assert ranking.views / 500 == pytest.approx(2.6, abs=0.5)
    true_classes = np.searchsorted(CUTS, truth)
    assert np.isfinite(ranking.positions).mean() > 0.99
    assert np.corrcoef(ranking.positions, truth)[0, 1] > 0.95
    certain = ranking.labels >= 0
    assert 0.4 < certain.mean() < 1.0  # what lies between the experts' cuts is not trained on
    assert (ranking.labels[certain] == true_classes[certain]).mean() > 0.9
    assert np.nanmean(single.positions) == pytest.approx(0.0, abs=1e-9)


def test_without_noise_or_spread_both_strategies_are_right(truth: np.ndarray) -> None:
    perception = with_noise(fit_perception(truth, CUTS), 0.0)
    rng = np.random.default_rng(2)
    readers = [draw_reader(rng, perception, CUTS)] * 3
    single = label_one_at_a_time(rng, truth, readers, 500 * 5.4)
    expected = np.searchsorted(readers[0].cuts, truth + readers[0].bias)
    assert (single.labels == expected).all()


def test_small_study_reports_what_the_issue_asks_for() -> None:
    result = simulate(seeds=2, slices=220, hours=0.35, epochs=1, test_heads=5)
    for strategy in ("ranking", "single"):
        assert set(result[strategy]) >= {"accuracy", "accuracy_ci", "f1", "auc", "labels"}
        assert 0 < result[strategy]["accuracy"] <= 1
        assert result[strategy]["accuracy_ci"][0] <= result[strategy]["accuracy"] <= result[strategy]["accuracy_ci"][1]
    assert result["single"]["labels"] == 220
    assert set(result["noise"]) == {"half", "double"}
    assert (result["seeds"], result["slices"]) == (2, 220)
