"""What every object of falx carries, whatever its kind: patient and study, series, time, equipment, RESEARCH."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from dicom_sr import codes
from dicom_sr.identity import device_uid, uid_of
from dicom_sr.request import Role
from dicom_sr.sources import take_over
from inference.result import ModelId

MANUFACTURER = "falx"
RESEARCH = "RESEARCH USE ONLY"
IMPLEMENTATION_UID = UID(uid_of("implementation"))
IMPLEMENTATION_NAME = "FALX"
_SERIES_OFFSET: dict[Role, int] = {
    "result": 0,
    "heatmap": 1,
    "key-objects": 2,
    "parametric-map": 3,
    "rejection-note": 9,
}


def finish(
    dataset: Dataset, *, role: Role, source: Dataset, model: ModelId, at: datetime, description: str, series_number: int
) -> None:
    """Complete an object in place; afterwards nothing in it depends on the clock or on highdicom's defaults.

    Parameters
    ----------
    source
        The header that patient and study are taken from.
    at
        Time zone aware analysis time: content, series and creation time.
    description
        Series Description, at most 64 characters (LO).
    series_number
        Of the result's SR; the other roles follow it.
    """
    take_over(source, dataset)
    dataset.SeriesDescription = description
    dataset.SeriesNumber = series_number + _SERIES_OFFSET[role]
    dataset.InstanceNumber = dataset.get("InstanceNumber") or 1
    _set_times(dataset, at)
    _set_equipment(dataset, model)
    dataset.ContentQualification = "RESEARCH"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    dataset.file_meta = meta


def _set_times(dataset: Dataset, at: datetime) -> None:
    """Write ``at`` in the zone that the study's other times are in."""
    local = at
    offset = dataset.get("TimezoneOffsetFromUTC", "")
    if len(offset) == 5 and offset[0] in "+-" and offset[1:].isdigit():
        minutes = int(offset[1:3]) * 60 + int(offset[3:])
        local = at.astimezone(timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))
    for name in ("Content", "Series", "InstanceCreation"):
        setattr(dataset, f"{name}Date", local.strftime("%Y%m%d"))
        setattr(dataset, f"{name}Time", local.strftime("%H%M%S.%f"))


def _set_equipment(dataset: Dataset, model: ModelId) -> None:
    """Name the model as the equipment (IHE AIR 6.5.3.1: the same values in header, observer and algorithm)."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = model.name
    dataset.SoftwareVersions = model.version
    dataset.DeviceSerialNumber = model.weights_sha256[:16]
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [codes.code_item(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = model.name
    item.SoftwareVersions = model.version
    item.DeviceSerialNumber = model.weights_sha256[:16]
    item.DeviceUID = device_uid(model)
    dataset.ContributingEquipmentSequence = [item]
