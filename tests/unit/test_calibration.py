"""Calibration and operating points against cases worked out by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from inference.calibration import (
    Calibration,
    expected_calibration_error,
    fit_platt,
    fit_temperature,
    ppv_at,
    reliability_curve,
    threshold_for_ppv,
    threshold_for_sensitivity,
)


def draw(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return rng.normal(1.5 * labels, 1.0), labels


def test_platt_is_logistic_regression():
    logits, labels = draw()
    fitted = fit_platt(logits, labels, "c")
    reference = LogisticRegression(C=1e6).fit(logits[:, None], labels)
    assert fitted.slope == pytest.approx(reference.coef_[0, 0], abs=0.02)
    assert fitted.intercept == pytest.approx(reference.intercept_[0], abs=0.02)


def test_calibration_mends_an_overconfident_score():
    logits, labels = draw()
    before = expected_calibration_error(Calibration().probability(8 * logits), labels)
    after = expected_calibration_error(fit_platt(8 * logits, labels, "c").probability(8 * logits), labels)
    assert after < 0.03 < before


def test_temperature_keeps_the_middle():
    logits, labels = draw()
    fitted = fit_temperature(5 * (logits - 0.75), labels, "c")
    assert fitted.slope < 1
    assert fitted.probability(0.0) == pytest.approx(0.5)


def test_separable_data_stay_finite():
    fitted = fit_platt([-1.0, -2.0, 1.0, 2.0], [0, 0, 1, 1], "c")
    assert 0 < fitted.slope < 50


def test_ppv_depends_on_prevalence_as_bayes_says():
    assert ppv_at(0.8, 0.1, 0.3) == pytest.approx(0.24 / 0.31)
    assert ppv_at(0.8, 0.1, 0.03) == pytest.approx(0.024 / 0.121)
    assert ppv_at(0.0, 0.0, 0.3) == 0


def test_alert_threshold_reaches_its_ppv_on_new_data():
    threshold, measured = threshold_for_ppv(*draw(seed=1), target=0.9, prevalence=0.3)
    scores, labels = draw(seed=2)
    called = scores >= threshold
    ppv = float(ppv_at(called[labels == 1].mean(), called[labels == 0].mean(), 0.3))
    assert ppv == pytest.approx(0.9, abs=0.05)
    assert measured["ppv"] >= 0.9
    assert measured["prevalence"] == 0.3


def test_no_false_positive_does_not_promise_certainty():
    _, measured = threshold_for_ppv([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], target=0.9, prevalence=0.3)
    assert measured["specificity"] == 1.0
    assert measured["ppv"] < 0.9


def test_triage_threshold_is_the_highest_that_finds_enough():
    scores, labels = [0.1, 0.2, 0.3, 0.4, 0.6, 0.8], [0, 1, 0, 1, 1, 1]
    threshold, measured = threshold_for_sensitivity(scores, labels, target=0.75, prevalence=0.5)
    assert 0.3 < threshold < 0.4
    assert measured["sensitivity"] == 0.75
    assert measured["specificity"] == 1.0


def test_reliability_curve_counts_everyone():
    rows = reliability_curve([0.05, 0.05, 0.95, 1.0], [0, 1, 1, 1])
    assert [row["n"] for row in rows] == [2, 2]
    assert rows[0]["observed"] == 0.5


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        fit_platt([0.1, 0.2], [1, 1], "c")
