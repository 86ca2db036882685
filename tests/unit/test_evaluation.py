"""Evaluation figures against scikit-learn and against cases worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from inference.training.evaluation import Case, auc, bootstrap, delta_auc, evaluate, mcnemar, rates


def cases(n=80, shift=1.5, seed=0, **more):
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        label = bool(i % 2)
        p = float(1 / (1 + np.exp(-(rng.normal(shift * label - shift / 2)))))
        made.append(
            Case(
                name=f"s{i}",
                patient=f"p{i // 2}",
                label=label,
                probability=p,
                kinds=("mass",) if label and i % 4 == 1 else (),
                slice_labels=(0.0, float(label), math.nan),
                slice_probabilities=(0.1, p, 0.5),
                pointed=True if label and i % 4 == 1 else False if label else None,
                groups={"vendor": "X" if i < n // 2 else "Y"},
                baselines={"coin": float(rng.random())},
                **more,
            )
        )
    return made


def test_auc_and_rates_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 200), np.round(rng.random(200), 1)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert rates(labels, scores > 0.5)["f1"] == pytest.approx(f1_score(labels, scores > 0.5))
    assert math.isnan(auc([1, 1], [0.1, 0.2]))


def test_rates_by_hand():
    found = rates([1, 1, 1, 0, 0], [1, 1, 0, 1, 0])
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == 0.5
    assert found["ppv"] == pytest.approx(2 / 3)
    assert math.isnan(rates([1, 1], [0, 0])["ppv"])


def test_an_evaluation_has_every_figure_of_the_issue():
    found = evaluate(cases(), threshold=0.5, prevalence=0.3, draws=200)
    asked = "n positives auc auc_ci ppv sensitivity specificity f1 threshold slice_auc pointing_hit_rate baseline by"
    assert set(asked.split()) <= set(found)
    low, high = found["auc_ci"]
    assert low < found["auc"] < high
    assert found["n"] == 80
    assert found["slices"] == 160
    assert found["pointing_hit_rate"] == 0.5
    assert found["baseline"]["coin"]["model_minus_baseline_ci"][0] > 0
    assert found["by"]["vendor"]["X"]["n"] == 40
    assert found["by"]["kind"]["mass"]["positives"] == 20
    assert found["by"]["kind"]["mass"]["n"] == 60


def test_declined_studies_are_counted_and_left_out():
    some = cases(10)
    some.append(Case(name="x", patient="x", label=True, probability=None))
    found = evaluate(some, threshold=0.5, draws=50)
    assert found["n"] == 10
    assert found["undetermined"] == 1


def test_intervals_resample_patients():
    """Twenty copies of five patients know no more than the five."""
    rng = np.random.default_rng(3)
    labels, scores = np.array([0, 0, 1, 1, 1] * 4), np.tile(rng.random(5), 4)
    by_patient = bootstrap([f"p{i % 5}" for i in range(20)], lambda i: auc(labels[i], scores[i]), draws=400)
    by_study = bootstrap([f"s{i}" for i in range(20)], lambda i: auc(labels[i], scores[i]), draws=400)
    assert by_patient[1] - by_patient[0] > by_study[1] - by_study[0]


def test_delta_auc_is_paired_when_both_sites_show_the_same_patients():
    one, same = cases(seed=0), cases(seed=0)
    found = delta_auc(one, same, draws=100)
    assert found["paired"]
    assert found["delta_auc"] == 0
    assert found["ci"] == (0.0, 0.0)
    here = [replace(c, patient=c.name) for c in one]
    there = [replace(c, name=c.name + "-b") for c in here]  # each patient once more, as another study
    found = delta_auc(here, there, draws=100)
    assert found["paired"]
    assert found["ci"] == (0.0, 0.0)
    suspected = max((c for c in there if c.label), key=lambda c: c.probability)
    unseen = [replace(c, label=False, probability=0.0) if c is suspected else c for c in there]
    figures = [auc([c.label for c in site], [c.probability for c in site]) for site in (here, unseen)]
    found = delta_auc(here, unseen, draws=100)
    assert found["paired"]
    assert found["delta_auc"] == pytest.approx(figures[0] - figures[1])
    other = [replace(c, name=c.name + "-b", patient=c.patient + "-b") for c in cases(seed=5)]
    unpaired = delta_auc(one, other, draws=100)
    assert not unpaired["paired"]
    assert unpaired["ci"][0] < unpaired["ci"][1]


def test_mcnemar_is_the_binomial_test_on_discordant_cases():
    truth = [1] * 10
    found = mcnemar(truth, [1] * 9 + [0], [0] * 8 + [1, 1])
    assert (found["first_right_second_wrong"], found["first_wrong_second_right"]) == (8, 1)
    assert found["p_value"] == pytest.approx(2 * (1 + 9) / 2**9)
    assert mcnemar(truth, truth, truth)["p_value"] == 1.0
