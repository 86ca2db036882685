"""A folder of DICOM files as studies and series; what is no usable image is listed, not dropped.

Used by the commands that read folders (infer, send, train, evaluate, rank). Follows no links out of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference.result import Reason
from node.errors import Corrupt, Rejected
from node.headers import Header, read_header

_DICOMDIR = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSeries:
    """One series: its files with their headers, in instance-number order."""

    study_instance_uid: str
    series_instance_uid: str
    files: tuple[Path, ...]
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file that is in no series, and why."""

    path: Path
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything a folder holds."""

    series: tuple[CatalogSeries, ...]
    left_out: tuple[LeftOut, ...]

    def studies(self) -> dict[str, tuple[CatalogSeries, ...]]:
        """Series by Study Instance UID, in the order found."""
        found: dict[str, list[CatalogSeries]] = {}
        for series in self.series:
            found.setdefault(series.study_instance_uid, []).append(series)
        return {uid: tuple(members) for uid, members in found.items()}


def scan(folder: Path, on_file: Callable[[Path], None] | None = None) -> Catalog:
    """Read the headers of all files under ``folder`` (or of the one file given).

    Parameters
    ----------
    on_file
        Called after each file, for a progress bar.

    Raises
    ------
    Rejected
        The folder does not exist (``no_such_folder``).
    """
    if not folder.exists():
        raise Rejected("no_such_folder", f"{folder} does not exist")
    groups: dict[tuple[str, str], list[tuple[Path, Header]]] = {}
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for path in files_under(folder):
        try:
            header = read_header(path)
        except Corrupt as error:
            left_out.append(_left_out(path, "not_dicom", str(error)))
        else:
            if header.sop_class_uid == _DICOMDIR:
                left_out.append(_left_out(path, "dicomdir", f"{path}: a DICOMDIR; its files are read one by one"))
            elif header.sop_instance_uid and header.sop_instance_uid in seen:
                left_out.append(_left_out(path, "duplicate", f"{path}: {header.sop_instance_uid} was read before"))
            else:
                seen.add(header.sop_instance_uid)
                key = (header.study_instance_uid, header.series_instance_uid)
                groups.setdefault(key, []).append((path, header))
        if on_file:
            on_file(path)
    return Catalog(series=tuple(_series(members) for members in groups.values()), left_out=tuple(left_out))


def files_under(folder: Path) -> list[Path]:
    """All regular files under ``folder``, sorted; hidden files and links are left alone."""
    if folder.is_file():
        return [folder]
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def _series(members: list[tuple[Path, Header]]) -> CatalogSeries:
    ordered = sorted(members, key=lambda member: (member[1].instance_number or 0, member[0]))
    return CatalogSeries(
        study_instance_uid=ordered[0][1].study_instance_uid,
        series_instance_uid=ordered[0][1].series_instance_uid,
        files=tuple(path for path, _ in ordered),
        headers=tuple(header for _, header in ordered),
    )


def _left_out(path: Path, code: str, text: str) -> LeftOut:
    return LeftOut(path=path, reason=Reason(code=code, text=text))
