"""`falx evaluate` judges what the node would answer: the head cut out first, slices left out counting as free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures_bodies import head_ct, long_neck

from inference.engine import Engine, shipped
from inference.training.dicom_writer import SeriesHeader, write_series
from inference.volume import Volume
from node.analysis import analyse_series
from node.local_studies import LocalStudies, LocalStudy
from node.model_evaluation import run_model

PURPOSE = "ct_haemorrhage"


@pytest.fixture(scope="module")
def neck() -> Volume:
    return long_neck(head_ct(), 40)


@pytest.fixture(scope="module")
def study(neck: Volume, tmp_path_factory: pytest.TempPathFactory) -> LocalStudy:
    """The series on disk, every slice labelled: those of the neck as free of blood."""
    folder = tmp_path_factory.mktemp("neck")
    header = SeriesHeader(key="neck", patient="neck", modality="CT", age_years=60.0, slice_thickness_mm=5.0)
    write_series(neck, header, folder)
    labels = {
        s.sop_instance_uid: {"intracranial_haemorrhage": int(z >= 40)} for z, s in enumerate(neck.geometry.slices)
    }
    return LocalStudy(
        study_instance_uid="2.25.1",
        patient="p",
        files=tuple(sorted(Path(folder).iterdir())),
        labels={"intracranial_haemorrhage": 1},
        slice_labels=labels,
        groups={},
    )


def test_the_case_is_what_the_node_answers(neck: Volume, study: LocalStudy) -> None:
    engine = Engine({PURPOSE: shipped(PURPOSE)}, device="cpu")
    local = LocalStudies(studies=(study,), unused=(), ignored_columns=(), labels_sha256="")
    case = run_model(local, "ct", engine, baselines=False).cases[0]
    answer = analyse_series(engine, PURPOSE, study.files)
    assert answer.result is not None
    assert case.probability == answer.result.findings[0].probability
    left_out = len(neck.voxels) - len(answer.result.findings[0].slices)
    assert left_out > 20, "the neck was not left out: nothing is tested"
    assert len(case.slice_labels) == len(case.slice_probabilities) == len(neck.voxels)
    assert np.count_nonzero(np.array(case.slice_labels) == 0) == 40
    assert case.slice_probabilities[-left_out:] == (0.0,) * left_out
    assert case.slice_labels[-left_out:].count(0.0) > 20  # what is known of slices that were not read still counts
