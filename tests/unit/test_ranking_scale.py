"""The Plackett-Luce scale against choix and against known truths; the choice of batches; classes."""

from __future__ import annotations

import choix
import numpy as np
import pytest
from scipy.stats import kendalltau

from inference.ranking import PRIOR_SD, Ranking, Scale, fit_scale
from inference.ranking_labels import cut_classes, order_agreement, repeat_agreement, weighted_kappa
from inference.ranking_plan import Progress, StopRule, is_enough, next_batch


def drawn(
    rng: np.random.Generator, truth: np.ndarray, batches: int, rater: str = "a", noise: float = 1.0
) -> list[Ranking]:
    out = []
    for _ in range(batches):
        items = rng.choice(len(truth), 8, replace=False)
        seen = truth[items] + noise * rng.gumbel(size=8)
        out.append(Ranking(items=tuple(int(item) for item in items[np.argsort(seen)]), rater=rater))
    return out


def test_scores_and_errors_are_those_of_choix() -> None:
    rng = np.random.default_rng(0)
    truth = 2 * np.sort(rng.normal(size=30))
    rankings = drawn(rng, truth, 50)
    ours = fit_scale(rankings, 30)
    highest_first = [tuple(ranking.items[::-1]) for ranking in rankings]
    theirs = choix.opt_rankings(30, highest_first, alpha=1 / (2 * PRIOR_SD**2))
    assert np.allclose(ours.scores, (theirs - theirs.mean()) / theirs.std(), atol=1e-4)
    curvature = choix.opt.Top1Fcts.from_rankings(highest_first, 1 / (2 * PRIOR_SD**2)).hessian(theirs)
    assert np.allclose(ours.errors, np.sqrt(np.diag(np.linalg.inv(curvature))) / theirs.std(), atol=1e-3)


def test_probed_errors_come_near_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rankings = drawn(rng, 2 * rng.normal(size=200), 90)
    exact = fit_scale(rankings, 200).errors
    monkeypatch.setattr("inference.ranking.EXACT_ERRORS_UP_TO", 0)
    probed = fit_scale(rankings, 200).errors
    assert np.median(np.abs(probed / exact - 1)) < 0.1


def test_careless_rater_weighs_less() -> None:
    rng = np.random.default_rng(2)
    truth = 2 * rng.normal(size=40)
    scale = fit_scale(drawn(rng, truth, 60, "careful", 0.5) + drawn(rng, truth, 60, "careless", 4.0), 40)
    assert scale.rater_weights["careful"] > 2 * scale.rater_weights["careless"]


def test_ties_pull_scores_together() -> None:
    apart = fit_scale([Ranking(items=(0, 1, 2), rater="a")] * 5, 3)
    tied = fit_scale([Ranking(items=(0, 1, 2), rater="a", ties=(False, True))] * 5, 3)
    assert tied.scores[2] - tied.scores[1] == pytest.approx(0, abs=1e-3)
    assert apart.scores[2] > apart.scores[1] > apart.scores[0]


def test_groups_never_compared_are_found_and_bridged() -> None:
    rankings = [Ranking(items=tuple(range(8)), rater="a"), Ranking(items=tuple(range(8, 16)), rater="a")]
    scale = fit_scale(rankings, 16)
    assert not scale.connected
    assert len(set(scale.groups[:8])) == 1
    ones = np.ones(16, dtype=np.int64)
    progress = Progress(views=ones, raters=ones, mine=ones, available=np.ones(16, dtype=bool))
    for seed in range(5):
        batch = next_batch(scale, progress, StopRule(), np.random.default_rng(seed))
        assert {item < 8 for item in batch} == {True, False}


@pytest.mark.parametrize("items", [(0, 0), (0, 7), (-1, 1)])
def test_impossible_rankings_are_refused(items: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ranking 0"):
        fit_scale([Ranking(items=items, rater="a")], 3)


def play(number: int, raters: int, *, noise: float = 0.0, seed: int = 0) -> tuple[float, Progress, Scale]:
    """Two raters order until each slice has three views; returns Kendall's tau with the truth."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(-2, 2, number)
    rule = StopRule()
    mine = np.zeros((raters, number), dtype=np.int64)
    rankings: list[Ranking] = []
    scale = fit_scale([], number)
    turn = 0
    while (mine.sum(axis=0) < rule.min_views).any():
        rater = turn % raters
        progress = Progress(
            views=mine.sum(axis=0),
            raters=(mine > 0).sum(axis=0),
            mine=mine[rater],
            available=np.ones(number, dtype=bool),
        )
        batch = np.array(next_batch(scale, progress, rule, rng))
        seen = truth[batch] + noise * rng.normal(size=len(batch))
        rankings.append(Ranking(items=tuple(int(i) for i in batch[np.argsort(seen)]), rater=str(rater)))
        mine[rater, batch] += 1
        scale = fit_scale(rankings, number)
        turn += 1
    return float(kendalltau(scale.scores, truth).statistic), progress, scale


def test_three_views_recover_the_order() -> None:
    taus = [play(24, 2, seed=seed) for seed in range(4)]
    assert min(tau for tau, _, _ in taus) >= 0.95, [tau for tau, _, _ in taus]
    assert all((progress.raters >= 1).all() and scale.connected for _, progress, scale in taus)


def test_next_batch_of_ten_thousand_has_eight_different_slices() -> None:
    rng = np.random.default_rng(0)
    views = rng.integers(0, 4, 10_000)
    scale = Scale(scores=rng.normal(size=10_000), errors=rng.random(10_000), groups=rng.integers(0, 3, 10_000))
    progress = Progress(views=views, raters=views // 2, mine=views // 3, available=views < 9)
    for _ in range(10):
        batch = next_batch(scale, progress, StopRule(), rng)
        assert len(set(batch)) == 8


def test_stop_rule_needs_views_raters_and_errors() -> None:
    three, two = np.full(8, 3), np.full(8, 2)
    none = np.zeros(8, dtype=bool)
    scale = Scale(scores=np.arange(8.0), errors=np.full(8, 0.2), groups=np.zeros(8, dtype=np.int64))
    seen = Progress(views=three, raters=two, mine=two, available=~none)
    assert is_enough(scale, seen, StopRule(), none)
    assert not is_enough(scale, seen, StopRule(max_error=0.1), none)
    assert not is_enough(scale, seen, StopRule(min_raters=3), none)


def test_classes_are_cut_at_the_median_with_an_uncertain_band() -> None:
    scores = np.linspace(-2, 2, 9)
    classes = cut_classes(scores, np.full(9, 0.1), {"ann": [-1.2, 0.8], "bob": [-0.6, 0.9]})
    assert classes.cuts == pytest.approx((-0.9, 0.85))
    assert list(classes.labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(np.flatnonzero(classes.uncertain)) == [2]
    with pytest.raises(ValueError, match="ascend"):
        cut_classes(scores, scores * 0, {"ann": [1.0, -1.0]})
    with pytest.raises(ValueError, match="every expert"):
        cut_classes(scores, scores * 0, {})


def test_agreement_measures() -> None:
    assert weighted_kappa([0, 1, 2, 2], [0, 1, 2, 2], 3) == 1.0
    assert weighted_kappa([0, 1, 2, 0], [2, 1, 0, 2], 3) < 0
    assert order_agreement([0, 1, 2], np.array([0.0, 1.0, 2.0])) == 1.0
    assert repeat_agreement([3, 1, 2], [2, 1, 3]) == -1.0
