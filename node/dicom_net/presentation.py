"""What falx takes as a Storage SCP: SOP classes and transfer syntaxes."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.presentation import PresentationContext, build_context

from node.dicom_net.callers import Permission
from node.dicom_net.uids import INSTANCE_AVAILABILITY, PERFORMED_STEP, STORAGE_COMMITMENT, VERIFICATION
from node.store import part10

ANNOUNCERS = (PERFORMED_STEP, INSTANCE_AVAILABILITY)
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_DICOM_ROOT = "1.2.840.10008."
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def accepted_contexts(proposed: Sequence[PresentationContext], granted: Permission) -> list[PresentationContext]:
    """Return what falx supports of the proposed presentation contexts, one a SOP class.

    Every storage class is taken, standard, retired or private, in any transfer syntax of the standard; uncompressed
    is preferred. Storage Commitment: as SCU (the peer takes the SCP role by role selection) and SCP.
    """
    offered: dict[UID, list[UID]] = {}
    for context in proposed:
        offered.setdefault(UID(context.abstract_syntax or ""), []).extend(UID(s) for s in context.transfer_syntax)
    contexts = []
    for abstract, syntaxes in offered.items():
        if abstract in (VERIFICATION, STORAGE_COMMITMENT):
            context = build_context(abstract, list(UNCOMPRESSED))
            if abstract == STORAGE_COMMITMENT:
                context.scu_role = context.scp_role = True
            contexts.append(context)
        elif granted is Permission.EVERYTHING and abstract in ANNOUNCERS:
            contexts.append(build_context(abstract, list(UNCOMPRESSED)))
        elif granted is Permission.EVERYTHING and is_storage(abstract):
            plain = [syntax for syntax in UNCOMPRESSED if syntax in syntaxes]
            packed = [syntax for syntax in syntaxes if syntax not in plain and syntax.is_transfer_syntax]
            if plain or packed:
                contexts.append(build_context(abstract, list(dict.fromkeys([*plain, *packed]))))
    return contexts


def is_storage(abstract: UID) -> bool:
    """Whether a SOP class belongs to the Storage Service Class, as far as its UID says: standard, retired, private."""
    if not abstract.startswith(_DICOM_ROOT):
        return True
    if abstract.name == str(abstract):  # newer than our dictionary
        return abstract.startswith(_STORAGE_ROOT)
    others = ("Commitment", "Management", "Directory")
    return abstract.type == "SOP Class" and "Storage" in abstract.name and not any(o in abstract.name for o in others)


FOR_ANALYSIS = tuple(sorted(UID(uid) for uid in part10.FOR_ANALYSIS))
NOT_FOR_ANALYSIS = tuple(
    sorted(UID(uid) for uid in UID_dictionary if is_storage(UID(uid)) and uid not in part10.FOR_ANALYSIS)
)
TRANSFER_SYNTAXES = (
    *UNCOMPRESSED,
    *sorted(UID(uid) for uid in UID_dictionary if UID(uid).is_transfer_syntax and UID(uid) not in UNCOMPRESSED),
)
