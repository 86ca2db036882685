"""Of which series an instance was offered and not kept, noted durably so that the assembly never calls it whole.

Counted is whatever a sender offered on an accepted association and did not see kept: refused for want of room or by the
index, quarantined as unreadable or contradictory, too large, or cut off in the middle (ADR 50). The note goes when the
instance comes after all.
"""

from __future__ import annotations

from node.dicom_net.upper_layer import EventAssociation
from node.errors import Corrupt
from node.store.database import now
from node.store.intake_writer import IntakeWriter
from node.store.part10 import Names, read_names
from node.store.refusals import Refusal

ENDED_EARLY = "ended early"


class Refusals:
    """Notes what associations failed to deliver; one instance serves all of them."""

    def __init__(self, writer: IntakeWriter) -> None:
        self._writer = writer

    def kept(self, association: EventAssociation, names: Names) -> None:
        """Remember the series an association is sending; it stands for objects that do not say theirs."""
        association.sending = (names.study_instance_uid, names.series_instance_uid)
        while association.unplaced:
            self._note(association, *association.sending, *association.unplaced.pop())

    def refused(self, association: EventAssociation, names: Names | None, sop_instance_uid: str, why: str) -> None:
        """Note that an instance was not kept.

        Parameters
        ----------
        names
            What it says it is; None when that cannot be read: it then counts for the series sent before it on this
            association, else for the first one after it.
        sop_instance_uid
            As the C-STORE request says; the data set's own one is taken where it can be read.
        why
            At most 32 characters.
        """
        if names is not None:
            association.sending = (names.study_instance_uid, names.series_instance_uid)
            sop_instance_uid = names.sop_instance_uid
        if association.sending is None:
            association.unplaced.append((sop_instance_uid, why))
        else:
            self._note(association, *association.sending, sop_instance_uid, why)

    def ended(self, association: EventAssociation) -> None:
        """Note the instance in whose middle the association ended, or was ended because it is too large."""
        unfinished = association.unfinished()
        if unfinished is None:
            return
        sop_instance_uid, syntax, head = unfinished
        try:
            names = read_names(head, syntax)
        except Corrupt:
            names = None
        if names is None or not names.made_by_falx:
            self.refused(association, names, sop_instance_uid, ENDED_EARLY)

    def _note(self, association: EventAssociation, study: str, series: str, sop_instance_uid: str, why: str) -> None:
        self._writer.refuse(
            Refusal(
                study_instance_uid=study,
                series_instance_uid=series,
                sop_instance_uid=sop_instance_uid[:64],
                calling_ae=association.requestor.ae_title.strip(),
                why=why,
                refused_at=now(),
            )
        )
