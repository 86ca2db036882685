"""Who says that a series is complete: Modality Performed Procedure Step and Instance Availability Notification as SCP.

Both only list instances (PS3.4 annexes F.7 and R); falx takes them as a hint that nothing more will come once it holds
every instance they list. It keeps no procedure steps: an N-CREATE of an MPPS is accepted and forgotten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import structlog
from pydicom import Dataset
from pynetdicom import evt

from node.dicom_net.uids import INSTANCE_AVAILABILITY
from node.store.database import now
from node.store.intake_writer import IntakeWriter, NotCommitted

log = structlog.get_logger()
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
COMPLETED = "COMPLETED"
ONLINE = "ONLINE"


def performed(step: Dataset) -> dict[str, list[str]]:
    """Series Instance UID -> SOP Instance UIDs that a completed performed procedure step made (PS3.4 F.7.2)."""
    listed: dict[str, list[str]] = defaultdict(list)
    if str(step.get("PerformedProcedureStepStatus", "")) != COMPLETED:
        return listed
    for series in step.get("PerformedSeriesSequence") or []:
        for keyword in ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence"):
            for item in series.get(keyword) or []:
                listed[str(series.get("SeriesInstanceUID", ""))].append(str(item.get("ReferencedSOPInstanceUID", "")))
    return listed


def available(notification: Dataset) -> dict[str, list[str]]:
    """Series Instance UID -> SOP Instance UIDs that a notification calls online (PS3.4 R.3)."""
    listed: dict[str, list[str]] = defaultdict(list)
    for series in notification.get("ReferencedSeriesSequence") or []:
        for item in series.get("ReferencedSOPSequence") or []:
            if str(item.get("InstanceAvailability", ONLINE)) == ONLINE:
                listed[str(series.get("SeriesInstanceUID", ""))].append(str(item.get("ReferencedSOPInstanceUID", "")))
    return listed


class Announcements:
    """The N-CREATE and N-SET handlers."""

    def __init__(self, writer: IntakeWriter) -> None:
        self._writer = writer

    def on_create(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """An MPPS begins (nothing to keep), or instances are said to be available."""
        attributes = event.attribute_list
        if event.context.abstract_syntax == INSTANCE_AVAILABILITY:
            return self._keep(available(attributes), "IAN", event)
        return self._keep(performed(attributes), "MPPS", event)

    def on_set(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """An MPPS ends."""
        return self._keep(performed(event.modification_list), "MPPS", event)

    def _keep(self, listed: Mapping[str, list[str]], source: str, event: Any) -> tuple[int, Dataset | None]:
        calling = event.assoc.requestor.ae_title.strip()
        try:
            for series_uid, instances in listed.items():
                self._writer.record_announcement(
                    series_instance_uid=series_uid, instances=instances, source=source, calling_ae=calling, at=now()
                )
        except NotCommitted as error:
            log.error("announcement_not_kept", source=source, error=str(error)[:200])
            return PROCESSING_FAILURE, None
        return SUCCESS, Dataset()
