"""Splitting and cleaning: offsets must point into the text as given, whatever the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.report_screen import unusable
from inference.report_text import MAX_SENTENCE_TOKENS, clean, sentence_spans, split, tokens_of

DEV_SET = Path(__file__).parents[1] / "data" / "report_dev_set.jsonl"


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No bleed. No mass.", ["No bleed.", "No mass."]),
        ("A 2.5 cm mass is seen. Dr. Smith was told.", ["A 2.5 cm mass is seen.", "Dr. Smith was told."]),
        ("IMPRESSION:\n1. Old infarct.\n2. No mass", ["IMPRESSION:", "1. Old infarct.", "2. No mass"]),
        ("no mass seen.No bleed", ["no mass seen.", "No bleed"]),
        ("There is an acute infarct in the territory of the left middle\ncerebral artery.", None),
        (
            "ct head period no bleed period no mass period ok",
            ["ct head period", "no bleed period", "no mass period", "ok"],
        ),
        ("", []),
        (" \n . \n", []),
    ],
)
def test_sentences(text: str, expected: list[str] | None) -> None:
    assert sentences(text) == ([text] if expected is None else expected)


@given(st.text(max_size=400))
def test_every_span_lies_in_the_text_in_order_and_holds_a_word(text: str) -> None:
    cleaned = clean(text)
    last = 0
    for sentence in split(cleaned.text):
        assert last <= sentence.start < sentence.end <= len(cleaned.text)
        assert 0 < len(sentence.tokens) <= MAX_SENTENCE_TOKENS
        last = sentence.end


def test_a_run_on_sentence_is_cut() -> None:
    text = "no mass, " * 100
    assert [len(sentence.tokens) <= MAX_SENTENCE_TOKENS for sentence in split(text)] == [True] * len(split(text))
    assert sum(len(sentence.tokens) for sentence in split(text)) == len(tokens_of(text))


def test_nul_bytes_are_read_as_spaces_and_spans_stay() -> None:
    text = "No\x00mass. Acute\ufffd infarct."
    cleaned = clean(text)
    assert cleaned.repaired
    assert cleaned.text == "No mass. Acute  infarct."
    start, end = sentence_spans(cleaned.text)[1]
    assert text[slice(*cleaned.original_span(start, end))] == "Acute\ufffd infarct."


def test_utf16_read_as_bytes_is_readable_and_spans_point_into_the_text_as_given() -> None:
    text = "No mass. Acute infarct.".encode("utf-16-le").decode("latin-1")
    cleaned = clean(text)
    assert cleaned.text == "No mass. Acute infarct."
    start, end = sentence_spans(cleaned.text)[1]
    original = text[slice(*cleaned.original_span(start, end))]
    assert original.replace("\x00", "") == "Acute infarct."


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("", "empty"),
        ("  \x00 .. 12/3 ", "empty"),
        ("Kein Nachweis einer Blutung. Die Liquorräume sind nicht erweitert, keine Raumforderung.", "non_english"),
        (
            "Pas de saignement. Les ventricules sont de taille normale, sans lésion du parenchyme cérébral.",
            "non_english",
        ),
        ("Sin hemorragia. El sistema ventricular es normal y no se observan lesiones.", "non_english"),
        ("頭部CT平扫未见明显异常", "non_english"),
        ("Без признаков кровоизлияния", "non_english"),
        ("CT chest: no pulmonary embolism. Lungs are clear. No pleural effusion or pneumothorax.", "non_head"),
        ("MRI lumbar spine. Disc bulge at L4/5 with foraminal narrowing. Conus normal.", "non_head"),
        ("qwe asd zxc rty fgh vbn uio jkl", "absurd"),
        ("x" * 5000, "absurd"),
        ("word " * 9000, "too_long"),
        ("Normal.", None),
        ("No acute intracranial abnormality.", None),
        ("NAD", None),
        ("Known breast and lung cancer. MRI brain: no metastases, ventricles normal.", None),
    ],
)
def test_screening(text: str, flag: str | None) -> None:
    cleaned = clean(text).text
    assert unusable(cleaned, split(cleaned)) == flag


def test_no_development_report_is_refused() -> None:
    for line in DEV_SET.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cleaned = clean(row["text"]).text
        assert unusable(cleaned, split(cleaned)) is None, row["id"]
