"""Reports in DICOM structured reports: a folder of Part 10 files.

Headings (concept names of containers and texts) become section headings. Reports that a device made, falx's own
results above all, are not read: falx must not learn from itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from inference.dicom_values import VALUE_FAULTS
from node.archive.sources.cells import as_text, as_time, modality_of
from node.archive.sources.columns import checked
from node.archive.sources.folder import FolderSource
from node.config import ArchiveSettings
from node.errors import Misconfigured
from node.store.labels_values import Flagged, Part, Report

_MODALITY_OF_STUDY = 0x00080061  # Modalities in Study, where the PACS adds it
_DEVICE_OBSERVER = ("121005", "121007")  # Observer Type, Device (DCM)
_STATES = {("COMPLETE", "VERIFIED"): "final", ("COMPLETE", "UNVERIFIED"): "preliminary"}


class DicomSrFolder(FolderSource):
    """One file is one report; the report id is its SOP Instance UID."""

    suffixes: ClassVar[tuple[str, ...]] = ("",)
    unreadable = (OSError, EOFError, InvalidDicomError, *VALUE_FAULTS)

    def __init__(self, archive: ArchiveSettings, location: Path | None = None) -> None:
        super().__init__(archive, location)
        if archive.columns:
            raise Misconfigured(f"archives.{archive.name}.columns: DICOM objects need no mapping; take it out")

    def records(self, path: Path, key: str) -> Iterator[Report | Flagged]:
        """Read one file."""
        ds = pydicom.dcmread(path)
        if ds.get("Modality") != "SR":
            yield Flagged(
                source_position=key, code="no_report", text=f"modality {ds.get('Modality', 'absent')}, not SR"
            )
        elif _made_by_device(ds):
            yield Flagged(
                source_position=key, code="device_report", text="the result of a device, not of a radiologist"
            )
        else:
            yield self._report(ds, key)

    def _report(self, ds: Dataset, key: str) -> Report | Flagged:
        flags: list[str] = []
        text = as_text("\n".join(_lines(ds)), flags)
        if not text.strip():
            return Flagged(source_position=key, code="no_text", text="no TEXT content item")
        time, is_read = as_time(f"{ds.get('ContentDate', '')}{str(ds.get('ContentTime', '')).split('.')[0]}")
        return checked(
            Report(
                report_id=str(ds.SOPInstanceUID),
                accession_number=str(ds.get("AccessionNumber", "") or ""),
                study_instance_uid=str(ds.get("StudyInstanceUID", "") or ""),
                text=text,
                modality=_modality(ds) or self.archive.modality,
                reported_at=time,
                status=_STATES.get((ds.get("CompletionFlag", ""), ds.get("VerificationFlag", "")), "preliminary"),
                source_position=key,
                flags=tuple(dict.fromkeys(flags if is_read else [*flags, "bad_time"])),
            )
        )


def _lines(ds: Dataset) -> Iterator[str]:
    """The texts in reading order (PS3.3 C.17.3), each section under its heading."""
    for item in ds.get("ContentSequence", []):
        names = item.get("ConceptNameCodeSequence", [])
        heading = str(names[0].get("CodeMeaning", "")) if names else ""
        if item.get("RelationshipType") == "HAS OBS CONTEXT":
            continue
        if item.get("ValueType") == "TEXT":
            text = str(item.get("TextValue", ""))
            yield f"{heading}: {text}" if heading and heading not in ("Finding", "Text") else text
        elif item.get("ValueType") == "CONTAINER":
            if heading:
                yield f"{heading}:"
            yield from _lines(item)


def _made_by_device(ds: Dataset) -> bool:
    for item in ds.get("ContentSequence", []):
        names, codes = item.get("ConceptNameCodeSequence", []), item.get("ConceptCodeSequence", [])
        if names and codes and (names[0].get("CodeValue"), codes[0].get("CodeValue")) == _DEVICE_OBSERVER:
            return True
    return str(ds.get("Manufacturer", "")).strip().lower() == "falx"


def _modality(ds: Dataset) -> str:
    """CT or MR when the study is of one of them alone; unknown otherwise."""
    found = ds.get(_MODALITY_OF_STUDY)
    values = found.value if found is not None else []
    values = [values] if isinstance(values, str) else list(values or [])
    images = {modality_of(str(value)) for value in values} & {"CT", "MR"}
    return images.pop() if len(images) == 1 else ""


class PacsSource(DicomSrFolder):
    """The structured reports of a PACS: fetched into a folder of falx's own, then read there."""

    def __init__(
        self, archive: ArchiveSettings, folder: Path, retrieve: Callable[[ArchiveSettings, Path], None]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        super().__init__(archive, folder)
        self._retrieve = retrieve

    def parts(self) -> Iterator[Part]:
        """Fetch what is new, then list."""
        self._retrieve(self.archive, self.location)
        return super().parts()
