"""The images of a reader study, blinded: each case's series with new UIDs and the case's name as the patient's."""

from __future__ import annotations

from pathlib import Path

import pydicom
from dicognito.anonymizer import Anonymizer

from inference.training.reader_study import draw_cases, write_study
from node.local_studies import LocalStudies
from node.model_evaluation import Run


def export(run: Run, local: LocalStudies, folder: Path, *, count: int = 100, seed: int = 0) -> int:
    """Write sheet, key and blinded DICOM series of a random draw of ``count`` cases; return how many were drawn."""
    drawn = draw_cases(run.cases, count, seed)
    write_study(drawn, run.threshold, folder)
    files = {study.study_instance_uid: study.files for study in local.studies}
    for name, case in drawn:
        target = folder / "images" / name
        target.mkdir(parents=True, exist_ok=True)
        blind = Anonymizer(seed=f"{seed}-{name}")
        for number, path in enumerate(files[case.name], start=1):
            ds = pydicom.dcmread(path)
            blind.anonymize(ds)
            ds.PatientName, ds.PatientID, ds.AccessionNumber = name, name, ""
            ds.StudyDescription = "Reader study - RESEARCH USE ONLY"
            ds.save_as(target / f"{number:04d}.dcm")
    return len(drawn)
