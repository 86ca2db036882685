"""Cron expressions of config.yaml as APScheduler triggers, with cron's own meaning of weekdays.

Five fields (minute hour day month weekday), or six with the second first. APScheduler counts weekdays from Monday and
wants both day fields to agree; cron counts from Sunday and, where both are restricted, either will do.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from node.errors import Misconfigured

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_RANGE = re.compile(r"^(\*|[0-7a-z]+)(?:-([0-7a-z]+))?(?:/(\d+))?$")


def trigger_of(expression: str, where: str = "cron") -> BaseTrigger:
    """The trigger of an expression, in the host's local time; raise Misconfigured naming ``where`` when it is none."""
    fields = expression.split()
    if len(fields) not in (5, 6):
        raise Misconfigured(f"{where}: {expression!r} must have five fields (minute hour day month weekday)")
    second, minute, hour, day, month, weekday = fields if len(fields) == 6 else ("0", *fields)
    try:
        times = {"second": second, "minute": minute, "hour": hour, "month": month}
        weekdays = _weekdays(weekday)
        if day != "*" and weekdays != "*":
            return OrTrigger([CronTrigger(**times, day=day), CronTrigger(**times, day_of_week=weekdays)])
        return CronTrigger(**times, day=day, day_of_week=weekdays)
    except ValueError as error:
        raise Misconfigured(f"{where}: {expression!r} is no cron expression: {error}") from None


def _weekdays(field: str) -> str:
    """cron's weekdays by name, which means the same to everybody."""
    if field == "*":
        return field
    days: set[int] = set()
    for part in field.lower().split(","):
        found = _RANGE.match(part)
        if found is None:
            raise ValueError(f"weekday {part!r}")
        first, last, step = found.groups()
        low = 0 if first == "*" else _number(first)
        high = 6 if first == "*" or (last is None and step) else _number(last) if last else low
        if high < low:
            raise ValueError(f"weekdays {part!r} run backwards")
        days.update(day % 7 for day in range(low, high + 1, int(step or 1)))
    return ",".join(WEEKDAYS[day] for day in sorted(days))


def _number(name: str) -> int:
    if name in WEEKDAYS:
        return WEEKDAYS.index(name)
    if not name.isdigit():
        raise ValueError(f"weekday {name!r}")
    return int(name)


def was_due(trigger: BaseTrigger, since: datetime | None, at: datetime) -> bool:
    """Whether the trigger fired after ``since`` and not later than ``at``; never for an archive without a run."""
    if since is None:
        return False
    following = trigger.get_next_fire_time(since, since.astimezone())
    return following is not None and following.astimezone(UTC) <= at
