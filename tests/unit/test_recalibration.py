"""A model's probabilities and thresholds fitted to a site: the ranking stays, what is stated becomes true there."""

import numpy as np
import pytest

from inference.calibration import Calibration, sigmoid
from inference.training.recalibration import recalibrated
from inference.weights import Metadata, OperatingPoint

PARENT = Metadata(
    name="tiny",
    version="1",
    purpose="mr_abnormality",
    architecture={"width": 4},
    operating_points={
        "alert": OperatingPoint(threshold=0.8, measured={"target_ppv": 0.9, "prevalence": 0.3}),
        "triage": OperatingPoint(threshold=0.1, measured={"target_sensitivity": 0.95, "prevalence": 0.3}),
        "own": OperatingPoint(threshold=0.6),
    },
    default_operating_point="alert",
    calibration=Calibration(identifier="synthetic", kind="platt", slope=1.5, intercept=-0.4),
    training={"synthetic": True, "seed": 3},
    intended_use="Research only.",
    sha256="ab",
)


@pytest.fixture(scope="module")
def site():
    """400 studies of a site where the model is far too sure, and says yes too often."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0.5, 2.0, 400)
    truth = (rng.random(400) < sigmoid(0.4 * logits - 1.0)).astype(float)
    return logits, PARENT.calibration.probability(logits), truth


@pytest.fixture(scope="module")
def found(site):
    _, stated, truth = site
    return recalibrated(PARENT, stated, truth, version="local-1", data_sha256="cd")


def test_stated_probabilities_become_the_sites(site, found):
    logits, stated, truth = site
    record = found.training["recalibration"]
    assert record["calibration_error_before"] > 0.2 > 0.1 > record["calibration_error"]
    anew = found.calibration.probability(logits)
    assert anew.mean() == pytest.approx(truth.mean(), abs=0.02)
    assert found.calibration.slope == pytest.approx(0.4, abs=0.15)
    assert np.array_equal(np.argsort(anew), np.argsort(stated))


def test_operating_points_keep_their_targets(site, found):
    logits, stated, truth = site
    anew = found.calibration.probability(logits)
    triage, own = found.operating_points["triage"], found.operating_points["own"]
    assert (anew[truth > 0] >= triage.threshold).mean() == triage.measured["sensitivity"] >= 0.95
    assert triage.measured["target_sensitivity"] == 0.95
    assert found.operating_points["alert"].measured["target_ppv"] == 0.9
    assert found.operating_points["alert"].measured["prevalence"] == 0.3
    assert np.array_equal(anew >= own.threshold, stated >= 0.6)  # no target: the same decisions
    assert own.measured["sensitivity"] == (stated[truth > 0] >= 0.6).mean()


def test_another_prevalence_moves_the_alert_point(site, found):
    _, stated, truth = site
    common = recalibrated(PARENT, stated, truth, version="x", data_sha256="cd", prevalence=0.95)
    assert common.operating_points["alert"].measured["prevalence"] == 0.95
    assert common.operating_points["alert"].threshold < found.operating_points["alert"].threshold


def test_the_model_says_where_its_numbers_come_from(site, found):
    logits, _, truth = site
    assert found.training["synthetic"] is True
    assert found.training["seed"] == 3
    assert found.version == "local-1"
    again = recalibrated(
        found, found.calibration.probability(logits), truth, version="local-2", data_sha256="cd"
    )  # on top of the first: little is left to correct
    for metadata in (found, again):
        assert metadata.intended_use.count("400 local studies") == 1
    assert found.calibration.identifier != PARENT.calibration.identifier
    assert again.calibration.slope == pytest.approx(found.calibration.slope, rel=0.05)


def test_too_few_or_badly_ranked_studies_are_refused(site):
    _, stated, truth = site
    few = np.flatnonzero(truth > 0)[:9]
    chosen = np.concatenate([few, np.flatnonzero(truth == 0)])
    with pytest.raises(ValueError, match=r"9 positive and \d+ negative studies were answered; 10 of each are needed"):
        recalibrated(PARENT, stated[chosen], truth[chosen], version="x", data_sha256="")
    with pytest.raises(ValueError, match=r"no better than chance \(AUC 0.\d+\): train it instead"):
        recalibrated(PARENT, 1 - stated, truth, version="x", data_sha256="")
