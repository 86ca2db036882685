"""Cron expressions mean what cron means by them; what was due while nobody was there is known."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from node.archive.cron import trigger_of, was_due
from node.errors import Misconfigured

SUNDAY = datetime(2024, 3, 3).astimezone()


def fires(expression: str, n: int = 8, start: datetime = SUNDAY) -> list[datetime]:
    trigger, at, found = trigger_of(expression), start, []
    for _ in range(n):
        following = trigger.get_next_fire_time(None, at)
        assert following is not None
        found.append(following)
        at = following + timedelta(seconds=1)
    return found


@pytest.mark.parametrize(
    ("weekdays", "expected"),
    [
        ("0", {6}),
        ("7", {6}),
        ("1", {0}),
        ("1-5", {0, 1, 2, 3, 4}),
        ("0-2", {6, 0, 1}),
        ("5-7", {4, 5, 6}),
        ("*/2", {6, 1, 3, 5}),
        ("sat,sun", {5, 6}),
        ("mon-fri/2", {0, 2, 4}),
    ],
)
def test_weekdays_count_from_sunday(weekdays: str, expected: set[int]) -> None:
    assert {at.weekday() for at in fires(f"0 2 * * {weekdays}")} == expected


def test_either_day_field_will_do() -> None:
    found = fires("0 2 13 * fri", 12)
    assert all(at.day == 13 or at.weekday() == 4 for at in found)
    assert any(at.day == 13 and at.weekday() != 4 for at in found)


def test_every_night_at_two_and_every_ten_seconds() -> None:
    assert [(at.hour, at.minute) for at in fires("0 2 * * *", 3)] == [(2, 0)] * 3
    assert [b - a for a, b in pairwise(fires("*/10 * * * * *", 3))] == [timedelta(seconds=10)] * 2


@pytest.mark.parametrize(
    "expression", ["", "0 2 * *", "61 * * * *", "0 2 * * 8", "0 2 * * fri-mon", "a b c d e", "@daily"]
)
def test_what_is_no_cron_expression(expression: str) -> None:
    with pytest.raises(Misconfigured, match=r"archives\.ris\.cron"):
        trigger_of(expression, "archives.ris.cron")


def test_what_was_due() -> None:
    trigger = trigger_of("0 2 * * *")
    evening = SUNDAY + timedelta(hours=20)
    assert not was_due(trigger, None, evening)
    assert not was_due(trigger, SUNDAY + timedelta(hours=3), evening)
    assert was_due(trigger, SUNDAY + timedelta(hours=3), evening + timedelta(hours=7))
    assert was_due(trigger, SUNDAY + timedelta(hours=1), evening)


def test_the_scheduler_loads_no_torch() -> None:
    program = "import sys, node.archive.schedule, node.report_retrieval; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
