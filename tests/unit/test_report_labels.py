"""The shipped labeller: what it says, where it points, and that it stands the development set and any text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.labels import REPORT_LABELS
from inference.report_labels import SHIPPED_FOLDER, ReportLabeller
from inference.training.report_baseline import keyword_scores
from inference.training.report_evaluation import auc_interval, evaluate, length_bias, mean_auc
from inference.weights import WrongModel

DATA = Path(__file__).parents[1] / "data"


def rows_of(name: str) -> list[dict[str, Any]]:
    lines = (DATA / f"report_{name}_set.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


ROWS, CHECK_ROWS = rows_of("dev"), rows_of("check")


@pytest.fixture(scope="module")
def labeller() -> ReportLabeller:
    return ReportLabeller.load()


def test_the_development_set_is_as_the_issue_asks() -> None:
    assert len(ROWS) >= 150
    assert sum(len(row["text"].split()) > 120 for row in ROWS) >= len(ROWS) / 2
    assert len({row["text"] for row in ROWS}) == len({row["id"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert set(row["labels"]) == set(REPORT_LABELS)
        assert row["labels"]["abnormal"] != 0 or 1 not in row["labels"].values(), row["id"]
    for label in REPORT_LABELS:
        assert sum(row["labels"][label] == 1 for row in ROWS) >= 12, label


@pytest.mark.parametrize(
    ("rows", "least", "least_mean", "most_bias"),
    [(ROWS, 0.97, 0.99, 0.2), (CHECK_ROWS, 0.94, 0.98, 0.25)],
    ids=["development", "check"],
)
def test_every_label_is_ranked_well_and_beats_the_keywords(
    labeller: ReportLabeller, rows: list[dict[str, Any]], least: float, least_mean: float, most_bias: float
) -> None:
    answers = labeller.label([row["text"] for row in rows], [row["modality"] for row in rows])
    scores = np.array([[answer.probabilities[label] for label in REPORT_LABELS] for answer in answers])
    references = [row["labels"] for row in rows]
    results = evaluate(references, scores)
    assert {label: row.auc for label, row in results.items() if (row.auc or 0) < least} == {}
    assert mean_auc(results) > least_mean
    assert mean_auc(results) > mean_auc(evaluate(references, keyword_scores([row["text"] for row in rows]))) + 0.05
    known = [row for row, reference in enumerate(references) if reference["abnormal"] is not None]
    abnormal = np.array([references[row]["abnormal"] for row in known], dtype=float)
    words = [len(rows[row]["text"].split()) for row in known]
    assert abs(length_bias(scores[known, 0], abnormal, words)) < most_bias


def test_the_check_set_shares_no_text_with_the_development_set() -> None:
    assert len(CHECK_ROWS) >= 80
    assert not {row["text"] for row in CHECK_ROWS} & {row["text"] for row in ROWS}
    for row in CHECK_ROWS:
        assert set(row["labels"]) == set(REPORT_LABELS)
        assert row["labels"]["abnormal"] != 0 or 1 not in row["labels"].values(), row["id"]
    for label in REPORT_LABELS:
        assert sum(row["labels"][label] == 1 for row in CHECK_ROWS) >= 8, label


def test_a_finding_is_present_with_its_sentences(labeller: ReportLabeller) -> None:
    text = "Known MS. No bleed. There is restricted diffusion in the left thalamus, an acute infarct. Clear sinuses."
    (answer,) = labeller.label([text], ["MR"])
    assert answer.labels["acute_stroke"] == answer.labels["abnormal"] == 1
    assert answer.labels["intracranial_haemorrhage"] == answer.labels["white_matter_inflammation"] == 0
    assert [text[a:b] for a, b in answer.evidence["acute_stroke"]] == [
        "There is restricted diffusion in the left thalamus, an acute infarct."
    ]
    assert answer.evidence["intracranial_haemorrhage"] == ()


@pytest.mark.parametrize(
    "text", ["", "CT chest: lungs clear, no pleural effusion.", "asdf jkl qwer zxcv uiop vbnm", "\x00"]
)
def test_an_unusable_text_is_flagged_not_guessed(labeller: ReportLabeller, text: str) -> None:
    (answer,) = labeller.label([text], [""])
    assert answer.flags
    assert not answer.usable
    assert answer.probabilities == {}
    assert set(answer.labels.values()) == {None}


def test_unknown_words_fire_no_label(labeller: ReportLabeller) -> None:
    base = "The ventricles are normal. No acute infarct. "
    strange = base + "The blorvek of the quansil is temmered in both drasts and shows vellin marfoes. Normal brain."
    (answer,) = labeller.label([strange], ["CT"])
    assert {label for label in REPORT_LABELS[1:] if answer.probabilities[label] > 0.3} == set()


def test_order_and_batching_do_not_change_the_answer(labeller: ReportLabeller) -> None:
    texts = [row["text"] for row in ROWS[:70]]
    together = labeller.label(texts, ["MR"] * 70)
    for index in (0, 33, 69):
        (alone,) = labeller.label([texts[index]], ["MR"])
        assert alone.labels == together[index].labels
        for label in REPORT_LABELS:
            assert alone.probabilities[label] == pytest.approx(together[index].probabilities[label], abs=1e-4)


@settings(max_examples=60)
@given(st.text(max_size=300))
def test_any_text_gets_an_answer_with_spans_inside_it(labeller: ReportLabeller, text: str) -> None:
    for prefix in ("", "MRI brain: acute infarct in the left frontal lobe. "):
        (answer,) = labeller.label([prefix + text], ["CT"])
        assert set(answer.labels) == set(REPORT_LABELS)
        for spans in answer.evidence.values():
            assert all(0 <= start < end <= len(prefix + text) for start, end in spans)


def test_embeddings_are_unit_vectors(labeller: ReportLabeller) -> None:
    vectors = labeller.embed(["No mass.", "", "Acute infarct."])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1], atol=1e-5)


def test_texts_and_modalities_must_match(labeller: ReportLabeller) -> None:
    with pytest.raises(ValueError, match="give one for each"):
        labeller.label(["a", "b"], ["CT"])


def test_changed_weights_stop(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED_FOLDER, folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(WrongModel, match="SHA-256"):
        ReportLabeller.load(folder)


def test_the_shipped_model_is_compact_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in SHIPPED_FOLDER.iterdir()) <= 8 * 2**20
    metadata = json.loads((SHIPPED_FOLDER / "metadata.json").read_text())
    assert metadata["training"]["synthetic"] is True
    assert "RESEARCH USE ONLY" in metadata["intended_use"]


def test_auc_interval_against_a_worked_example() -> None:
    reference = np.array([1, 1, 0, 0, 0], dtype=float)
    auc, low, high = auc_interval(reference, np.array([0.9, 0.4, 0.5, 0.3, 0.4]))
    assert auc == pytest.approx((3 + 1.5) / 6)
    assert low <= auc <= high


def test_length_bias_is_a_rank_correlation_among_normals() -> None:
    abnormal = np.array([0, 0, 0, 1], dtype=float)
    assert length_bias(np.array([0.1, 0.2, 0.3, 0.0]), abnormal, [10, 20, 30, 99]) == pytest.approx(1.0)
