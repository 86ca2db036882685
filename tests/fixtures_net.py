"""Small DICOM instances and storage folders for the tests of reception and delivery."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from sqlalchemy import Engine, RowMapping, insert, select

from node.config import StorageSettings
from node.store import outbox
from node.store.database import now, reading
from node.store.intake_writer import Arrival
from node.store.ledger_tables import deliveries, studies, tasks
from node.store.part10 import FileMeta, Names, read_names
from node.store.spool import Spool, instance_path

SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


def ct_instance(study: str, series: str, sop: str, *, number: int = 1, rows: int = 16, seed: int = 0) -> FileDataset:
    """A small valid CT slice of noise."""
    dataset = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = sop
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, sop
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.Modality, dataset.Manufacturer = "CT", "SYNTHETIC"
    dataset.PatientName, dataset.PatientID = "SYNTHETIC^HEAD", "SYN1"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "20240102", "101500", "A1", "1"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 5 * number], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 5
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = rows
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    pixels = np.random.default_rng(seed + number).integers(0, 2000, (rows, rows)).astype("<u2")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def ct_series(count: int, *, rows: int = 16, seed: int = 0) -> list[FileDataset]:
    """One series of ``count`` small slices with UIDs of its own."""
    study, series = generate_uid(), generate_uid()
    return [ct_instance(study, series, generate_uid(), number=n + 1, rows=rows, seed=seed) for n in range(count)]


def encode(dataset: Dataset) -> bytes:
    """The data set in Explicit VR Little Endian, without file meta."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def arrival(spool: Spool, dataset: Dataset, *, calling_ae: str = "CT1", association: str = "a1") -> Arrival:
    """Write ``dataset`` as a part of the spool, as reception does."""
    content = encode(dataset)
    names: Names = read_names(BytesIO(content), ExplicitVRLittleEndian)
    meta = FileMeta(
        sop_class_uid=names.sop_class_uid,
        sop_instance_uid=names.sop_instance_uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        calling_ae=calling_ae,
        called_ae="FALX",
        remote_host="127.0.0.1",
    )
    path = instance_path(names.study_instance_uid, names.series_instance_uid, names.sop_instance_uid)
    sha256 = hashlib.sha256(content).hexdigest()
    file = spool.write(path, meta.encode(len(content), sha256), memoryview(content))
    return Arrival(
        file=file,
        names=names,
        meta=meta,
        size_bytes=len(content),
        sha256=sha256,
        received_at=datetime.now(UTC),
        association=association,
    )


def queue_results(
    storage: StorageSettings, engine: Engine, datasets: Sequence[Dataset], destinations: Sequence[str]
) -> list[str]:
    """Store objects and queue them for one new task, as the pipeline does; return their SOP Instance UIDs."""
    at, study = now(), str(datasets[0].StudyInstanceUID)
    with engine.begin() as connection:
        if connection.execute(select(studies).where(studies.c.study_instance_uid == study)).first() is None:
            connection.execute(
                insert(studies).values(study_instance_uid=study, first_received_at=at, last_received_at=at)
            )
        version = len(connection.execute(select(tasks).where(tasks.c.study_instance_uid == study)).all()) + 1
        task = connection.execute(
            insert(tasks).values(
                study_instance_uid=study, model="ct_haemorrhage", version=version, state="analysed",
                last_instance_at=at, created_at=at, run_after=at,
            )
        ).inserted_primary_key[0]  # fmt: skip
    kinds = {SR_CLASS: "SR"}
    stored = [
        outbox.store_object(storage, d, kind=kinds.get(d.SOPClassUID, "SC"), role="result", profile="p", task_id=task)
        for d in datasets
    ]
    with engine.begin() as connection:
        outbox.enqueue(connection, objects=stored, destinations=destinations, at=at)
    return [str(d.SOPInstanceUID) for d in datasets]


def capture(study: str, *, syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    """A small secondary capture of a study."""
    dataset = ct_instance(study, generate_uid(), generate_uid(), rows=32)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.Modality, dataset.ConversionType = "OT", "WSD"
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def report(study: str) -> FileDataset:
    """A small structured report of a study."""
    dataset = ct_instance(study, generate_uid(), generate_uid())
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SR_CLASS
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, keyword)
    dataset.Modality, dataset.ValueType, dataset.ContinuityOfContent = "SR", "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ContentDate, dataset.ContentTime = "20240102", "101500"
    return dataset


def deliveries_of(engine: Engine) -> dict[str, RowMapping]:
    """All deliveries by SOP Instance UID."""
    with reading(engine) as connection:
        return {row["sop_instance_uid"]: row for row in connection.execute(select(deliveries)).mappings()}
