"""What a cell of a report archive means: texts in odd encodings, times, modalities, report states. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

_HL7_TIME = re.compile(r"^(\d{4})(\d{2})(\d{2})(?:(\d{2})(\d{2})(?:(\d{2}))?)?(?:\.\d+)?([+-]\d{4})?$")
_MODALITIES = {
    "": "",
    "CT": "CT",
    "CTHEAD": "CT",
    "MR": "MR",
    "MRI": "MR",
    "MRIHEAD": "MR",
    "MRHEAD": "MR",
    "NMR": "MR",
}
_STATES = {
    "preliminary": "preliminary",
    "prelim": "preliminary",
    "p": "preliminary",
    "r": "preliminary",
    "partial": "preliminary",
    "registered": "preliminary",
    "final": "final",
    "f": "final",
    "verified": "final",
    "amended": "amended",
    "corrected": "amended",
    "appended": "amended",
    "c": "amended",
    "a": "amended",
}


def as_text(cell: object, flags: list[str]) -> str:
    """A cell as text; what had to be mended is added to ``flags``.

    Bytes that are no UTF-8 are read as Windows-1252 (they arrive as bytes, or as the lone surrogates of Python's
    ``surrogateescape``). NUL becomes a space, so that positions in the text stay as they are.
    """
    if cell is None:
        return ""
    if isinstance(cell, bytes):
        text = cell.decode("utf-8", "surrogateescape")
    else:
        text = cell if isinstance(cell, str) else str(cell)
    if any("\ud800" <= character <= "\udfff" for character in text):
        flags.append("encoding")
        text = _from_windows(text)
    if "\0" in text:
        flags.append("nul_bytes")
        text = text.replace("\0", " ")
    return text


def _from_windows(text: str) -> str:
    try:
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    except UnicodeEncodeError:  # surrogates that no byte stands behind, as JSON's \ud800 can give
        return text.encode("utf-8", "replace").decode("utf-8")


def as_time(cell: object) -> tuple[datetime | None, bool]:
    """A cell as an aware time, and whether it could be read; a time without a zone is the host's local time."""
    if cell is None or cell == "":
        return None, True
    if isinstance(cell, datetime):
        return cell.astimezone(UTC), True
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day).astimezone(UTC), True
    text = str(cell).strip()
    try:
        found = _HL7_TIME.match(text)
        if found:
            year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
            zone = found.group(7) or ""
            moment = datetime(year, month, day, hour, minute, second)
            return (datetime.strptime(f"{moment:%Y%m%d%H%M%S}{zone}", "%Y%m%d%H%M%S%z") if zone else moment).astimezone(
                UTC
            ), True
        return datetime.fromisoformat(text).astimezone(UTC), True
    except (ValueError, OverflowError, OSError):
        return None, False


def modality_of(cell: str) -> str:
    """``CT``, ``MR``, empty for unknown; anything else comes back in capitals and is not labelled."""
    key = re.sub(r"[^A-Z]", "", cell.upper())
    return _MODALITIES.get(key, key[:16])


def status_of(cell: str) -> str:
    """``preliminary``, ``final``, ``amended`` or empty."""
    return _STATES.get(cell.strip().lower(), "")


def is_true(cell: str) -> bool:
    """Whether a cell says yes."""
    return cell.strip().lower() in ("1", "true", "t", "yes", "y", "addendum")
