"""UIDs are functions: valid, the same for the same input, different for any other."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_sr.build import build_results
from dicom_sr.identity import device_uid, input_key, tracking_uid, uid_of
from dicom_sr.request import DestinationProfile, Predecessor
from inference.result import Reason
from tests.fixtures_sr import CT_MODEL, MR_MODEL, request

PARTS = st.lists(st.one_of(st.text(), st.integers(), st.none()), max_size=6)
SOURCES = st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=8)


@given(PARTS)
def test_uid_is_a_valid_uid(parts: list[str | int | None]) -> None:
    uid = uid_of(*parts)
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid)
    assert len(uid) <= 64
    assert uid == uid_of(*parts)


@given(PARTS, PARTS)
def test_different_parts_give_different_uids(one: list[str | int | None], other: list[str | int | None]) -> None:
    assert (uid_of(*one) == uid_of(*other)) == (one == other)


@given(SOURCES, st.randoms())
def test_input_key_ignores_order_and_repetition(sources: list[tuple[str, str]], random: Random) -> None:
    shuffled = [*sources, *sources[:2]]
    random.shuffle(shuffled)
    assert input_key(CT_MODEL, "balanced", "c", sources) == input_key(CT_MODEL, "balanced", "c", shuffled)


@given(SOURCES, st.tuples(st.text(min_size=1), st.text(min_size=1)))
def test_input_key_sees_every_source(sources: list[tuple[str, str]], extra: tuple[str, str]) -> None:
    same = extra in sources
    keys = input_key(CT_MODEL, "b", "c", sources), input_key(CT_MODEL, "b", "c", [*sources, extra])
    assert (keys[0] == keys[1]) == same


def test_input_key_sees_weights_operating_point_and_calibration() -> None:
    sources = [("1.2", "ff")]
    keys = {
        input_key(CT_MODEL, "balanced", "c", sources),
        input_key(MR_MODEL, "balanced", "c", sources),
        input_key(CT_MODEL, "sensitive", "c", sources),
        input_key(CT_MODEL, "balanced", "d", sources),
    }
    assert len(keys) == 4


def test_tracking_uid_outlives_a_model_version_and_tells_findings_apart() -> None:
    newer = replace(CT_MODEL, version="9", weights_sha256="ef" * 32)
    assert tracking_uid("1.2", "mass", CT_MODEL) == tracking_uid("1.2", "mass", newer)
    assert tracking_uid("1.2", "mass", CT_MODEL) != tracking_uid("1.2", "subdural", CT_MODEL)
    assert tracking_uid("1.2", "mass", CT_MODEL) != tracking_uid("1.2", "mass", CT_MODEL, "1.2.3#1")
    assert device_uid(CT_MODEL) != device_uid(newer)


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "failed", "reason": Reason(code="x", text="x"), "result": None, "volume": None},
        {"possibly_incomplete": True},
        {"profile": DestinationProfile(sr="comprehensive")},
        {"input_key": "another"},
        {
            "predecessor": Predecessor(
                sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
                sop_instance_uid="2.25.1",
                series_instance_uid="2.25.2",
                series_description="AI ICH: suspected - RESEARCH USE ONLY",
            )
        },
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_answer_is_another_object(changes: dict[str, object]) -> None:
    first = request(size=64)
    one, other = build_results(first)[0].dataset, build_results(replace(first, **changes))[0].dataset
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID


def test_objects_of_one_result_have_their_own_uids() -> None:
    made = build_results(request(size=64, profile={"heatmap": "single-frame", "parametric_map": True}))
    assert len({m.dataset.SOPInstanceUID for m in made}) == len(made)
    assert len({(m.role, m.dataset.SeriesInstanceUID) for m in made}) == 4
