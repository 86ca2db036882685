"""The synthetic corpus: wide, reproducible, its labels where its sentences say so, its lengths alike."""

from __future__ import annotations

import collections
import statistics

import numpy as np
import pytest

from inference.labels import REPORT_LABELS
from inference.training.report_corpus import SyntheticReport, make_report
from inference.training.report_fit import OPEN, example_of
from inference.training.report_grammar import Grammar, phrases
from inference.training.report_noise import american, misspell


@pytest.fixture(scope="module")
def reports() -> list[SyntheticReport]:
    return [make_report(seed) for seed in range(1500)]


def test_the_same_seed_gives_the_same_report() -> None:
    assert make_report(7) == make_report(7)
    assert make_report(7) != make_report(8)


def test_every_template_expands() -> None:
    import random

    grammar = Grammar(random.Random(1))
    for sections in phrases().values():
        for templates in sections.values():
            for template in templates:
                text = grammar.expand(template, {"x": "a mass", "xs": "mass", "y": "lymphoma"})
                assert not set("{(|") & set(text), template


def test_sentence_spans_hold_their_text(reports: list[SyntheticReport]) -> None:
    for report in reports[:200]:
        for start, end, _ in report.lines:
            assert 0 <= start < end <= len(report.text) + 1


def test_a_present_label_is_said_by_a_sentence(reports: list[SyntheticReport]) -> None:
    for report in reports:
        said = set().union(*(line.present for _, _, line in report.lines)) if report.lines else set()
        assert {label for label, value in report.labels.items() if value == 1} <= said, report.text


def test_every_label_is_frequent_enough_and_normals_exist(reports: list[SyntheticReport]) -> None:
    count = collections.Counter(label for report in reports for label, value in report.labels.items() if value == 1)
    assert all(count[label] > 100 for label in REPORT_LABELS)
    assert sum(report.labels["abnormal"] == 0 for report in reports) > 250


def test_length_does_not_tell_the_label(reports: list[SyntheticReport]) -> None:
    words = {flag: [len(r.text.split()) for r in reports if r.labels["abnormal"] == flag] for flag in (0, 1)}
    assert 100 <= statistics.median(words[0] + words[1]) <= 180
    assert abs(statistics.median(words[0]) - statistics.median(words[1])) < 25


def test_sentences_rarely_repeat_and_many_find_nothing(reports: list[SyntheticReport]) -> None:
    lines = [line for report in reports for _, _, line in report.lines]
    assert sum(not line.present for line in lines) > 0.3 * len(lines)
    assert len({line.text for line in lines}) > 0.5 * len(lines)


def test_sentence_targets_follow_the_sentences(reports: list[SyntheticReport]) -> None:
    for report in reports[:300]:
        example = example_of(report)
        assert example is not None
        assert example.sentences is not None
        found = example.sentences.max(axis=0)
        for column, label in enumerate(REPORT_LABELS):
            said = any(label in line.present for _, _, line in report.lines)
            assert (found[column] == 1 or (example.sentences[:, column] == OPEN).any()) if said else found[column] <= 0


def test_spelling_and_typing() -> None:
    import random

    assert american("Haemorrhage with oedema of the grey matter, tumour excluded") == (
        "Hemorrhage with edema of the gray matter, tumor excluded"
    )
    rng = random.Random(3)
    misspelt = [misspell("infarction", rng) for _ in range(200)]
    assert np.mean([word != "infarction" for word in misspelt]) > 0.95
    assert all(abs(len(word) - 10) <= 1 for word in misspelt)
