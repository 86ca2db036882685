"""One request in, its DICOM objects out. Pure: no disk, no network, no clock.

    request -> SR -> key objects -> heatmap -> parametric map     (the order they are sent in)

The heatmap is built first, since the SR refers to its frames. Every object must pass
:func:`dicom_sr.check.checked_bytes` before it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydicom.dataset import Dataset

from dicom_sr import wording
from dicom_sr.capture import build_captures
from dicom_sr.evidence import Pictures
from dicom_sr.key_objects import RejectionTitle, build_key_objects, rejection_note
from dicom_sr.parametric_map import build_parametric_map
from dicom_sr.report import build_report
from dicom_sr.request import RejectedObject, ResultObject, ResultRequest
from dicom_sr.sources import require_one_study
from inference.result import Heatmap, ModelId

__all__ = ["RejectionTitle", "build_rejection_note", "build_results"]


def build_results(request: ResultRequest) -> tuple[ResultObject, ...]:
    """Return the objects of one task for one destination profile, in the order they should be sent.

    There is always exactly one SR, whatever the outcome. A positive study also has key objects and a heatmap, and a
    parametric map, as the profile says; other studies have pictures only with ``heatmap_for_negatives``.

    Raises
    ------
    MixedSources
        The sources are not of one patient and study; the text names the attribute, not its value.
    """
    require_one_study(request.sources)
    heatmap = _shown_heatmap(request)
    pictures: tuple[Pictures, ...] = ()
    if heatmap is not None and request.volume is not None and request.profile.heatmap != "none":
        pictures = build_captures(request, request.volume, heatmap)
    objects = [ResultObject(kind="SR", role="result", dataset=build_report(request, pictures))]
    if wording.verdict(request) == "suspected" and request.profile.key_objects:
        selection = build_key_objects(request, pictures)
        if selection is not None:
            objects.append(ResultObject(kind="KO", role="key-objects", dataset=selection))
    objects += [ResultObject(kind="SC", role="heatmap", dataset=shown.dataset) for shown in pictures]
    if heatmap is not None and request.profile.parametric_map:
        objects.append(ResultObject(kind="PM", role="parametric-map", dataset=build_parametric_map(request, heatmap)))
    return tuple(objects)


def build_rejection_note(
    *,
    header: Dataset,
    rejected: Sequence[RejectedObject],
    model: ModelId,
    text: str,
    rejected_at: datetime,
    title: RejectionTitle = "quality",
) -> ResultObject:
    """Return the note that withdraws falx's own objects where the destination takes IOCM rejection notes.

    Parameters
    ----------
    header
        Any instance of the study, a source or one of falx's objects: patient and study are taken from it.
    rejected
        The objects to withdraw, all of that study. The same set gives the same UIDs.
    text
        Why, for people; no patient data.
    title
        ``quality`` (hide; a superseded or wrong result), ``patient-safety``, or ``retention-expired`` (may delete).
    """
    note = rejection_note(
        header=header, rejected=rejected, model=model, text=text, rejected_at=rejected_at, title=title
    )
    return ResultObject(kind="KO", role="rejection-note", dataset=note)


def _shown_heatmap(request: ResultRequest) -> Heatmap | None:
    """Return the heatmap if this study's is to be sent."""
    if request.result is None or request.result.heatmap is None:
        return None
    wanted = wording.verdict(request) == "suspected" or request.profile.heatmap_for_negatives
    return request.result.heatmap if wanted else None
