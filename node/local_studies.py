"""A hospital's own studies with labels: a folder and a label file, joined, one chosen series a study.

Used by `falx train`, `falx evaluate` and `falx deploy`. Series are found and chosen exactly as the node does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.result import Reason
from inference.training.label_file import LabelFile, LabelFileError, Labels, patient_key, read_label_file
from node.catalog import CatalogSeries, scan
from node.config import ModelsSettings
from node.errors import Misconfigured, Rejected
from node.headers import Header
from node.rules.facts import SeriesFacts, facts_of
from node.rules.series_choice import choose_series, why_none
from node.study import CT_HAEMORRHAGE, MR_ABNORMALITY

PURPOSES: Mapping[str, tuple[str, str]] = {
    "ct": (CT_HAEMORRHAGE, "intracranial_haemorrhage"),
    "mr": (MR_ABNORMALITY, "abnormal"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStudy:
    """One study with what is known of it.

    ``labels`` holds the study's labels, ``slice_labels`` those of slices by SOP Instance UID; ``patient`` groups the
    studies of a patient and is never printed; ``groups`` are vendor and slice thickness, for the breakdown.
    """

    study_instance_uid: str
    patient: str
    files: tuple[Path, ...]
    labels: Labels
    slice_labels: Mapping[str, Labels]
    groups: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStudies:
    """The studies that can be used, and those that cannot, with the reason."""

    studies: tuple[LocalStudy, ...]
    unused: tuple[tuple[str, Reason], ...]
    ignored_columns: tuple[str, ...]
    labels_sha256: str

    def need(self, count: int) -> None:
        """Raise Rejected unless there are ``count`` usable studies; says what became of the others."""
        if len(self.studies) >= count:
            return
        reasons = "; ".join(sorted({f"{reason.code}: {reason.text}" for _, reason in self.unused})[:5])
        others = f" (of the others: {reasons})" if reasons else ""
        raise Rejected("too_few_studies", f"{len(self.studies)} labelled studies, {count} are needed{others}")


def find_studies(
    folder: Path,
    label_files: Sequence[Path],
    modality: str,
    models: ModelsSettings | None = None,
    on_file: Callable[[Path], None] | None = None,
) -> LocalStudies:
    """Join a folder of DICOM files with label files.

    Parameters
    ----------
    label_files
        One or more; a later file adds to an earlier one (studies in one, slices in another).
    modality
        ``ct`` or ``mr``.

    Raises
    ------
    Misconfigured
        When a label file cannot be used.
    Rejected
        When the folder does not exist.
    """
    purpose, label = PURPOSES[modality]
    rules = getattr(models or ModelsSettings(), purpose).series
    tables = [_read(path) for path in label_files]
    used: list[LocalStudy] = []
    unused: list[tuple[str, Reason]] = []
    for uid, members in scan(folder, on_file).studies().items():
        facts = [facts_of(series.headers) for series in members]
        labels = _labels_of(tables, members)
        choice = choose_series(facts, purpose, rules)
        if labels is None or labels.get(label) is None:
            unused.append((uid, Reason(code="no_label", text=f"the label files say nothing of its {label}")))
        elif choice.chosen is None:
            unused.append((uid, why_none(choice, purpose)))
        else:
            chosen = next(s for s in members if s.series_instance_uid == choice.chosen.series_instance_uid)
            used.append(_study(uid, chosen, choice.chosen, labels, tables))
    digest = "-".join(table.sha256 for table in tables)
    ignored = tuple(dict.fromkeys(name for table in tables for name in table.ignored))
    return LocalStudies(studies=tuple(used), unused=tuple(unused), ignored_columns=ignored, labels_sha256=digest)


def _read(path: Path) -> LabelFile:
    try:
        return read_label_file(path)
    except LabelFileError as error:
        raise Misconfigured(str(error)) from error


def _labels_of(tables: Sequence[LabelFile], members: Sequence[CatalogSeries]) -> Labels | None:
    """A study's labels, from the first file that knows it; slices count when no file knows the study itself."""
    header = members[0].headers[0]
    slices = [h.sop_instance_uid for series in members for h in series.headers]
    names = (header.study_instance_uid, header.accession_number, header.patient_id)
    for uids in ([], slices):
        for table in tables:
            found = table.of_study(*names, slice_uids=uids)
            if found is not None:
                return found
    return None


def _study(
    uid: str, series: CatalogSeries, facts: SeriesFacts, labels: Labels, tables: Sequence[LabelFile]
) -> LocalStudy:
    slices: dict[str, Labels] = {}
    for header in series.headers:
        for table in tables:
            found = table.of_slice(header.sop_instance_uid)
            if found is not None:
                slices[header.sop_instance_uid] = found
    return LocalStudy(
        study_instance_uid=uid,
        patient=patient_key(facts.header.patient_id) or uid,
        files=series.files,
        labels=labels,
        slice_labels=slices,
        groups=_groups(facts.header),
    )


def _groups(header: Header) -> dict[str, str]:
    """Vendor and slice thickness in steps of a millimetre."""
    thickness = header.slice_thickness_mm
    return {
        "vendor": header.manufacturer.strip() or "unknown",
        "thickness": "unknown" if thickness is None else f"{round(thickness)} mm",
    }
