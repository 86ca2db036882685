"""One request in, its DICOM objects out. Pure: no disk, no network, no clock.

    request -> SR -> key objects -> heatmap -> parametric map     (the order they are sent in)

The heatmap is built first, since the SR refers to its frames.

    build_results(request: ResultRequest) -> tuple[ResultObject, ...]
    build_rejection_note(*, header: Dataset, rejected: Sequence[RejectedObject], model: ModelId, text: str,
                         rejected_at: datetime, title: RejectionTitle = "quality") -> ResultObject
    dicom_sr.check.checked_bytes(dataset: Dataset) -> bytes      Part 10 bytes; raises NotConformant
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydicom.dataset import Dataset

from dicom_sr.request import RejectedObject, ResultObject, ResultRequest

RejectionTitle = Literal["quality", "patient-safety", "retention-expired"]
