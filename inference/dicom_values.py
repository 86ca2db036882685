"""Single values out of a data set, leniently: what is missing, empty or senseless is None or "".

The one place where falx tolerates wrong value representations, units and character sets in received headers.
"""

from __future__ import annotations

import math
import re
import struct
from datetime import date
from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue

# what pydicom is seen to raise on values that break their representation, or break off (found by fuzzing)
VALUE_FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    BytesLengthException,
    struct.error,
)
_AGE_UNITS_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def raw(ds: Dataset, keyword: str) -> Any:
    """The element's value, or None when it is absent or cannot be decoded."""
    try:
        element = ds.get_item(keyword)
        return None if element is None else ds[keyword].value
    except VALUE_FAULTS:
        return None


def text(ds: Dataset, keyword: str) -> str:
    """The value as text: stripped, without control characters; of several values the first."""
    values = texts(ds, keyword)
    return values[0] if values else ""


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """All values as texts; empty when absent."""
    value = raw(ds, keyword)
    if value is None or value == "" or isinstance(value, bytes):
        return ()
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        return tuple("".join(c for c in str(v) if c.isprintable()).strip() for v in values)
    except (ValueError, UnicodeError):
        return ()


def number(ds: Dataset, keyword: str) -> float | None:
    """The first value as a finite number."""
    value = raw(ds, keyword)
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if len(value) else None
    return _finite(value)


def integer(ds: Dataset, keyword: str) -> int | None:
    """The first value as a whole number."""
    value = number(ds, keyword)
    return None if value is None or abs(value) > 2**53 else int(value)


def numbers(ds: Dataset, keyword: str, length: int) -> tuple[float, ...] | None:
    """Exactly ``length`` finite numbers, else None."""
    value = raw(ds, keyword)
    if not isinstance(value, MultiValue | list | tuple) or len(value) != length:
        return None
    found = [_finite(v) for v in value]
    return None if any(v is None for v in found) else tuple(v for v in found if v is not None)


def age_years(ds: Dataset) -> float | None:
    """Age at the study: Patient's Age (0010,1010), else from birth and study date; None when neither makes sense."""
    match = re.fullmatch(r"(\d{1,3})([YMWD]?)", text(ds, "PatientAge").upper())
    if match and int(match[1]) > 0:
        return int(match[1]) * _AGE_UNITS_YEARS[match[2] or "Y"]
    born, studied = _date(text(ds, "PatientBirthDate")), _date(text(ds, "StudyDate"))
    if born is None or studied is None or studied < born:
        return None
    years = (studied - born).days / 365.25
    return years if years < 130 else None


def _finite(value: Any) -> float | None:
    if value is None or isinstance(value, bytes):
        return None
    try:
        result = float(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def _date(value: str) -> date | None:
    digits = value.replace(".", "").replace("/", "").replace("-", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None
