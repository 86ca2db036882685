"""When a series is complete: the table of rules, and properties that hold for every series."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import CompletionSettings
from node.headers import Header
from node.rules.completion import Completion, SeriesView, Verdict, judge

START = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
SETTINGS = CompletionSettings()  # T1 10 s, T1b 60 s, T2 900 s, 100 mm


def header(z_mm: float, **values: object) -> Header:
    return Header(
        modality="CT",
        rows=512,
        columns=512,
        frame_positions_mm=((-100.0, -100.0, z_mm),),
        frame_orientations=((1.0, 0.0, 0.0, 0.0, 1.0, 0.0),),
        slice_thickness_mm=5.0,
        **values,  # type: ignore[arg-type]
    )


def stack(positions_mm: list[float]) -> list[Header]:
    return [header(z) for z in positions_mm]


FULL = [5.0 * i for i in range(30)]
TWO_STEPS = [2.5 * i for i in range(20)] + [47.5 + 5.0 * i for i in range(1, 20)]


def view(positions_mm: list[float], **values: object) -> SeriesView:
    start: dict[str, object] = {
        "headers": stack(positions_mm),
        "first_received_at": START,
        "last_received_at": START,
        "sender_association_open": False,
    }
    return SeriesView(**{**start, **values})  # type: ignore[arg-type]


def after(seconds: float, seen: SeriesView, **kwargs: float) -> Completion:
    return judge(seen, START + timedelta(seconds=seconds), SETTINGS, **kwargs)


WAIT, COMPLETE, FLAGGED = (Verdict.WAIT, False), (Verdict.COMPLETE, False), (Verdict.COMPLETE, True)


@pytest.mark.parametrize(
    ("name", "seen", "seconds", "expected"),
    [
        ("still coming", view(FULL), 9, WAIT),
        ("silent and whole", view(FULL), 10, COMPLETE),
        ("two spacings are no gap", view(TWO_STEPS), 10, COMPLETE),
        ("a gap", view(FULL[:12] + FULL[13:]), 10, WAIT),
        ("a gap after T1b", view(FULL[:12] + FULL[13:]), 60, FLAGGED),
        ("every second slice", view(FULL[::2]), 10, WAIT),
        ("half a head", view(FULL[:15]), 10, WAIT),
        ("half a head after T1b", view(FULL[:15]), 60, FLAGGED),
        ("no positions", view([], headers=[Header(modality="CT")]), 60, FLAGGED),
        ("association open", view(FULL, sender_association_open=True), 10, WAIT),
        ("association open all day", view(FULL, sender_association_open=True), 60, COMPLETE),
        ("association open, a gap", view(FULL[:15], sender_association_open=True), 899, WAIT),
        ("hard cap", view(FULL[:15], sender_association_open=True), 900, FLAGGED),
        ("hard cap while coming", view(FULL, last_received_at=START + timedelta(seconds=899)), 900, FLAGGED),
        ("count confirmed", view(FULL[:15], counted=(15, 15)), 0, COMPLETE),
        ("counts differ", view(FULL[:15], counted=(14, 15)), 0, WAIT),
        ("more counted than held", view(FULL, counted=(31, 31)), 60, WAIT),
        ("more counted than held, cap", view(FULL, counted=(31, 31)), 900, FLAGGED),
        ("fewer counted than held", view(FULL, counted=(20, 20)), 10, COMPLETE),
        ("announced", view(FULL[:15], announced_complete=True), 0, COMPLETE),
        ("clock back an hour", view(FULL, last_received_at=START + timedelta(hours=1)), 10, COMPLETE),
        ("clock back, watched", view(FULL, last_received_at=START + timedelta(hours=1), unchanged_s=3), 10, WAIT),
        ("clock forward, watched", view(FULL, unchanged_s=3.0), 600, WAIT),
        ("late slice starts a new cap", view(FULL[:15], reopened_at=START + timedelta(seconds=880)), 20, WAIT),
        ("refused", view(FULL, refused=1), 59, WAIT),
        ("refused after T1b", view(FULL, refused=1), 60, FLAGGED),
        ("refused, count confirmed", view(FULL, refused=1, counted=(30, 30)), 60, FLAGGED),
        ("refused, announced", view(FULL, refused=1, announced_complete=True), 60, FLAGGED),
        ("refused, association open", view(FULL, refused=1, sender_association_open=True), 899, WAIT),
        ("unreadable header", view(FULL, unreadable=1), 59, WAIT),
        ("unreadable header after T1b", view(FULL, unreadable=1), 60, FLAGGED),
    ],
)  # fmt: skip
def test_table(name: str, seen: SeriesView, seconds: float, expected: tuple[Verdict, bool]) -> None:
    answer = after(seconds, seen)
    assert (answer.verdict, answer.possibly_incomplete) == expected, answer.why
    assert 0 < len(answer.why) <= 64


def test_a_sender_may_have_its_own_silence() -> None:
    assert after(3, view(FULL), silence_s=2.0).verdict is Verdict.COMPLETE
    assert after(20, view(FULL), silence_s=30.0).verdict is Verdict.WAIT


def test_an_enhanced_object_is_judged_by_its_frames() -> None:
    frames = tuple((-100.0, -100.0, 5.0 * i) for i in range(30))
    whole = replace(header(0), number_of_frames=30, frame_positions_mm=frames)
    assert after(10, view([], headers=[whole])).verdict is Verdict.COMPLETE


positions = st.lists(st.integers(0, 60), min_size=1, max_size=60, unique=True).map(lambda zs: [5.0 * z for z in zs])


@given(positions, st.booleans(), st.floats(0, 2000))
def test_the_end_is_always_reached_and_never_taken_back(zs: list[float], is_open: bool, seconds: float) -> None:
    seen = view(zs, sender_association_open=is_open)
    answer = after(seconds, seen)
    if answer.verdict is Verdict.COMPLETE:
        assert after(seconds + 500, seen).verdict is Verdict.COMPLETE
    else:
        assert answer.look_again_at > START + timedelta(seconds=seconds)
        assert answer.look_again_at <= START + timedelta(seconds=900.1)
    assert after(900, seen).verdict is Verdict.COMPLETE


@given(positions, st.floats(0, 899), st.randoms())
def test_arrival_order_does_not_matter(zs: list[float], seconds: float, random: object) -> None:
    shuffled = list(zs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert after(seconds, view(zs)) == after(seconds, view(shuffled))


@given(st.integers(1, 28), st.floats(10, 59))
def test_a_missing_inner_slice_is_never_complete_before_t1b(hole: int, seconds: float) -> None:
    assert after(seconds, view(FULL[:hole] + FULL[hole + 1 :])).verdict is Verdict.WAIT


@given(st.sampled_from([0.5, 0.625, 1.25, 2.5, 3.0, 5.0]), st.integers(0, 35), st.booleans())
def test_whole_stacks_of_any_spacing_and_tilt_are_complete(step: float, tilt: int, feet_first: bool) -> None:
    import math

    c, s = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    zs = [step * i for i in range(int(150 / step))]
    headers = [
        replace(
            header(z),
            frame_positions_mm=((-100.0, -s * z, c * z),),
            frame_orientations=((1.0, 0.0, 0.0, 0.0, c, s),),
            slice_thickness_mm=step,
        )
        for z in (reversed(zs) if feet_first else zs)
    ]
    assert after(10, view([], headers=headers)).verdict is Verdict.COMPLETE
