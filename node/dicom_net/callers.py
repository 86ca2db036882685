"""Who may call falx, and for what: application entity titles, hosts, presentation contexts."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from enum import Enum

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.presentation import PresentationContext, build_context

from node.config import Settings
from node.dicom_net.uids import STORAGE_COMMITMENT, VERIFICATION

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_DICOM_ROOT = "1.2.840.10008."


class Permission(Enum):
    """What an association's caller may do."""

    NOTHING = "nothing"
    COMMITMENT = "commitment"  # a destination's answer to our storage commitment request
    EVERYTHING = "everything"


def permission(settings: Settings, calling_ae: str, host: str) -> Permission:
    """Decide what a caller may do: callers are listed, destinations may always answer a storage commitment."""
    reception = settings.reception
    for caller in reception.callers:
        if caller.ae_title == calling_ae and (not caller.hosts or any(_is_host(host, name) for name in caller.hosts)):
            return Permission.EVERYTHING
    if reception.accept_unknown_callers:
        return Permission.EVERYTHING
    for destination in settings.destinations:
        if destination.ae_title == calling_ae and _is_host(host, destination.host):
            return Permission.COMMITMENT
    return Permission.NOTHING


def _is_host(address: str, name: str) -> bool:
    """Whether ``address`` is ``name``: an address, a network such as 10.1.0.0/16, or a host name."""
    try:
        found = ipaddress.ip_address(address)
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped
        return found in ipaddress.ip_network(name, strict=False)
    except ValueError:
        pass
    try:
        return address in {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
    except OSError:
        return False


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
