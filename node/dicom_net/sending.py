"""Sending folders of DICOM files to an application entity, as they are stored (`falx send`, the demo)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from inference.dicom_values import VALUE_FAULTS
from node.config import TlsSettings
from node.dicom_net.scu import MAX_CONTEXTS, AssociationLost, Peer, association
from node.dicom_net.store_scu import Answer, SendResult, send_object, storage_contexts
from node.errors import Rejected

_DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory: DICOMDIR
_TRIES = 3  # associations in a row that end before one file was answered


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """A file to send."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str


@dataclass(slots=True, kw_only=True)
class SendReport:
    """What was sent, with the peer's answers in the order of the files."""

    results: list[tuple[DicomFile, SendResult]] = field(default_factory=list)
    not_dicom: list[Path] = field(default_factory=list)

    @property
    def studies(self) -> list[str]:
        """The Study Instance UIDs sent, in order."""
        return list(dict.fromkeys(file.study_instance_uid for file, _result in self.results))

    @property
    def refused(self) -> list[tuple[DicomFile, SendResult]]:
        """Files that the peer did not take."""
        return [(file, result) for file, result in self.results if result.answer is not Answer.SENT]


def dicom_files(folder: Path) -> tuple[list[DicomFile], list[Path]]:
    """Find the DICOM files below ``folder`` (or ``folder`` itself, when it is a file), and the files that are none.

    Names and extensions do not matter; DICOMDIR files are left out of both.
    """
    files, others = [], []
    for path in sorted(p for p in ([folder] if folder.is_file() else folder.rglob("*")) if p.is_file()):
        try:
            head = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"]
            )
            if head.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
                continue
            files.append(
                DicomFile(
                    path=path,
                    sop_class_uid=str(head.SOPClassUID),
                    sop_instance_uid=str(head.SOPInstanceUID),
                    study_instance_uid=str(head.get("StudyInstanceUID", "")),
                    transfer_syntax_uid=str(head.file_meta.TransferSyntaxUID),
                )
            )
        except (InvalidDicomError, EOFError, *VALUE_FAULTS):
            others.append(path)
    return files, others


def send_folder(
    folder: Path,
    ae_title: str,
    host: str,
    port: int,
    *,
    calling_ae: str,
    tls: TlsSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SendReport:
    """Send every DICOM file below ``folder``; as many associations as the presentation contexts need.

    Parameters
    ----------
    progress
        Called with (files answered, files in all) after each.

    Raises
    ------
    Rejected
        There is no DICOM file.
    DestinationFault, AssociationLost
        The peer cannot be reached, or ends three associations in a row without an answer.
    """
    files, others = dicom_files(folder)
    if not files:
        raise Rejected("no_dicom_files", f"{folder} holds no DICOM file")
    report = SendReport(not_dicom=others)
    peer = Peer(ae_title=ae_title, host=host, port=port, tls=tls or TlsSettings())
    for group in _groups(files):
        _send_group(group, peer, calling_ae, report, progress or (lambda _done, _all: None), len(files))
    return report


def _groups(files: Sequence[DicomFile]) -> Iterator[list[DicomFile]]:
    """Cut the files into groups whose contexts fit one association."""
    group: list[DicomFile] = []
    kinds: set[tuple[str, str]] = set()
    for file in files:
        kind = (file.sop_class_uid, file.transfer_syntax_uid)
        if group and len(storage_contexts(sorted(kinds | {kind}))) > MAX_CONTEXTS:
            yield group
            group, kinds = [], set()
        group.append(file)
        kinds.add(kind)
    if group:
        yield group


def _send_group(
    group: list[DicomFile],
    peer: Peer,
    calling_ae: str,
    report: SendReport,
    progress: Callable[[int, int], None],
    total: int,
) -> None:
    contexts = storage_contexts(dict.fromkeys((f.sop_class_uid, f.transfer_syntax_uid) for f in group))
    waiting = list(group)
    lost = 0
    while waiting:
        try:
            with association(peer, contexts, calling_ae=calling_ae) as opened:
                while waiting:
                    result = send_object(opened, waiting[0].path, waiting[0].sop_class_uid, len(waiting) % 65535 + 1)
                    report.results.append((waiting.pop(0), result))
                    lost = 0
                    progress(len(report.results), total)
        except AssociationLost:
            lost += 1
            if lost == _TRIES:
                raise
