"""Label files: what is known of studies and of slices, from falx's own export and from public challenges.

Read are falx's own label file (docs/labels.md; CSV or Parquet; ``study_instance_uid`` and/or ``accession_number``,
optional ``sop_instance_uid``), RSNA-2019 ``stage_2_train.csv`` (``ID,Label``) and CQ500 ``reads.csv`` (the majority of
its three readers).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from inference.labels import ALL_LABELS, HAEMORRHAGE_KINDS, canonical

Labels = dict[str, int | None]

KEYS = ("study_instance_uid", "accession_number", "sop_instance_uid", "patient_id")
KNOWN_EXTRAS = ("model_name", "model_version", "model_sha256")
_RSNA = re.compile(r"^(ID_[0-9a-f]+)_([a-z]+)$")
_CQ500 = {
    "ICH": "intracranial_haemorrhage",
    "IPH": "intraparenchymal",
    "IVH": "intraventricular",
    "SDH": "subdural",
    "EDH": "extradural",
    "SAH": "subarachnoid",
}


class LabelFileError(ValueError):
    """A label file that cannot be used; the message names the file, the column or the line, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """What a label file says; 1 present, 0 absent, None undecidable.

    Attributes
    ----------
    by_study, by_accession, by_patient, by_slice
        Labels under their key. Patients are keyed by letters and digits alone (CQ500 names them in three ways).
    ignored
        Columns that mean nothing to falx.
    sha256
        Of the file.
    """

    by_study: Mapping[str, Labels] = field(default_factory=dict)
    by_accession: Mapping[str, Labels] = field(default_factory=dict)
    by_patient: Mapping[str, Labels] = field(default_factory=dict)
    by_slice: Mapping[str, Labels] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    sha256: str = ""

    def of_study(
        self, study_uid: str, accession: str = "", patient: str = "", slice_uids: Iterable[str] = ()
    ) -> Labels | None:
        """Labels of a study: its own row, else what its slices add up to; None when the file does not know it."""
        key = patient_key(patient)
        for table, name in ((self.by_study, study_uid), (self.by_accession, accession), (self.by_patient, key)):
            if name and name in table:
                return table[name]
        slices = [self.by_slice[uid] for uid in slice_uids if uid in self.by_slice]
        return _sum_up(slices) if slices else None

    def of_slice(self, sop_instance_uid: str) -> Labels | None:
        """Labels of a slice, None when the file does not know it."""
        return self.by_slice.get(sop_instance_uid)


def read_label_file(path: Path) -> LabelFile:
    """Read a label file of any known form.

    Raises
    ------
    LabelFileError
        When the file cannot be read, holds no known label, or names neither studies nor slices.
    """
    try:
        data = path.read_bytes()
        frame = pl.read_parquet(path) if data[:4] == b"PAR1" else pl.read_csv(path, infer_schema=False)
    except OSError as error:
        raise LabelFileError(f"{path}: {error.strerror}") from error
    except pl.exceptions.PolarsError as error:
        raise LabelFileError(f"{path} is neither CSV nor Parquet: {error}") from error
    columns = {_plain(name): name for name in frame.columns}
    if {"id", "label"} == set(columns):
        found = _rsna(path, frame.rename({columns["id"]: "id", columns["label"]: "label"}))
    elif any(name.startswith("r1_") for name in columns) and "name" in columns:
        found = _cq500(path, frame.rename({old: new for new, old in columns.items()}))
    else:
        found = _table(path, frame.rename({old: new for new, old in columns.items()}))
    return replace(found, sha256=hashlib.sha256(data).hexdigest())


def patient_key(name: str) -> str:
    """Letters and digits of a patient's or folder's name, upper case: ``CQ500-CT-12`` and ``CQ500CT12`` are one."""
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _table(path: Path, frame: pl.DataFrame) -> LabelFile:
    """Falx's own form: one row a study, or a slice."""
    labels = {name: label for name in frame.columns if (label := canonical(name))}
    keys = [name for name in KEYS if name in frame.columns]
    if not labels:
        known = ", ".join(ALL_LABELS)
        raise LabelFileError(f"{path} holds no label column; it has {', '.join(frame.columns)}; known are {known}")
    if not keys:
        raise LabelFileError(f"{path} names no study: one of the columns {', '.join(KEYS)} is needed")
    tables: dict[str, dict[str, Labels]] = {"by_study": {}, "by_accession": {}, "by_patient": {}, "by_slice": {}}
    for number, row in enumerate(frame.iter_rows(named=True), start=2):
        values = {label: _value(path, number, name, row[name]) for name, label in labels.items()}
        if row.get("sop_instance_uid"):
            tables["by_slice"][str(row["sop_instance_uid"]).strip()] = values
            continue
        names = (("study_instance_uid", "by_study"), ("accession_number", "by_accession"), ("patient_id", "by_patient"))
        for column, table in names:
            if row.get(column):
                key = str(row[column]).strip()
                tables[table][patient_key(key) if table == "by_patient" else key] = values
    expected = {*labels, *keys, *KNOWN_EXTRAS}
    ignored = tuple(n for n in frame.columns if n not in expected and not (n.startswith("p_") and canonical(n[2:])))
    return LabelFile(
        by_study=tables["by_study"],
        by_accession=tables["by_accession"],
        by_patient=tables["by_patient"],
        by_slice=tables["by_slice"],
        ignored=ignored,
    )


def _value(path: Path, line: int, column: str, cell: object) -> int | None:
    if cell is None or str(cell).strip() == "":
        return None
    try:
        number = float(str(cell))
    except ValueError:
        number = math.nan
    if number in (0.0, 1.0):
        return int(number)
    raise LabelFileError(f"{path}, line {line}, column {column}: {cell!r} is not 1, 0 or empty")


def _rsna(path: Path, frame: pl.DataFrame) -> LabelFile:
    """``ID_<slice>_<kind>,<0|1>``; the SOP Instance UID of those files is ``ID_<slice>``."""
    slices: dict[str, Labels] = {}
    for number, (identifier, value) in enumerate(frame.select("id", "label").iter_rows(), start=2):
        match = _RSNA.match(str(identifier).strip())
        label = canonical(match.group(2)) if match else None
        if match is None or label is None:
            raise LabelFileError(f"{path}, line {number}: {identifier!r} is not ID_<slice>_<kind of haemorrhage>")
        slices.setdefault(match.group(1), {})[label] = _value(path, number, "label", value)
    return LabelFile(by_slice=slices)


def _cq500(path: Path, frame: pl.DataFrame) -> LabelFile:
    """Columns ``R1:ICH`` ... ``R3:SAH``; present is what two of three readers say."""
    wanted = {code: [f"r{reader}_{code.lower()}" for reader in (1, 2, 3)] for code in _CQ500}
    missing = [name for names in wanted.values() for name in names if name not in frame.columns]
    if missing:
        raise LabelFileError(f"{path} looks like CQ500 reads.csv but lacks the columns {', '.join(missing)}")
    patients: dict[str, Labels] = {}
    for number, row in enumerate(frame.iter_rows(named=True), start=2):
        votes = {
            _CQ500[code]: [_value(path, number, name, row[name]) or 0 for name in names]
            for code, names in wanted.items()
        }
        patients[patient_key(str(row["name"]))] = {label: int(sum(v) >= 2) for label, v in votes.items()}
    return LabelFile(by_patient=patients)


def _sum_up(slices: list[Labels]) -> Labels:
    """A study shows what any of its slices shows; it is free of what all its slices are free of."""
    study: Labels = {}
    for label in {name for labels in slices for name in labels}:
        values = [labels.get(label) for labels in slices]
        study[label] = 1 if 1 in values else None if None in values else 0
    if any(study.get(kind) == 1 for kind in HAEMORRHAGE_KINDS) and "intracranial_haemorrhage" not in study:
        study["intracranial_haemorrhage"] = 1
    return study
