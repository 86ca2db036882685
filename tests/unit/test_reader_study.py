"""The reader study: a blinded draw, sheets to fill, and the comparison with the model."""

import csv

import pytest

from inference.training.evaluation import Case
from inference.training.reader_study import SheetError, draw_cases, score, write_study


@pytest.fixture
def study(tmp_path):
    cases = [
        Case(name=f"2.25.{i}", patient=f"p{i}", label=i % 2 == 0, probability=None if i == 7 else 0.9 - i / 20)
        for i in range(12)
    ]
    drawn = draw_cases(cases, 10, seed=4)
    sheet, key = write_study(drawn, 0.5, tmp_path)
    return drawn, sheet, key


def fill(sheet, out, answers):
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"present": answers(row["case"]), "seconds": "12.5"})
    return out


def test_the_draw_is_blind_and_repeatable(study):
    drawn, sheet, _ = study
    assert [name for name, _ in drawn] == [f"CASE-{i:03d}" for i in range(1, 11)]
    assert "2.25." not in sheet.read_text()
    assert all(case.probability is not None for _, case in drawn)
    assert draw_cases([case for _, case in drawn], 5, 1) == draw_cases([case for _, case in drawn], 5, 1)


def test_filled_sheets_are_scored_against_the_key(study, tmp_path):
    drawn, sheet, key = study
    truth = {name: int(case.label) for name, case in drawn}
    perfect = fill(sheet, tmp_path / "expert.csv", lambda name: truth[name])
    always = fill(sheet, tmp_path / "eager.csv", lambda name: 1)
    found = score(key, [perfect, always])
    assert found["n"] == 10
    assert found["readers"]["expert"]["sensitivity"] == found["readers"]["expert"]["specificity"] == 1.0
    assert found["readers"]["eager"]["specificity"] == 0.0
    assert found["readers"]["expert"]["median_seconds"] == 12.5
    assert found["readers"]["expert"]["mcnemar_against_model"]["first_wrong_second_right"] == 0


def test_an_unfilled_sheet_is_refused(study):
    _, sheet, key = study
    with pytest.raises(SheetError, match="write 1 or 0"):
        score(key, [sheet])
