"""`falx conformance`: the DICOM conformance statement (PS3.2) of the running configuration, as Markdown.

Made from the same lists that negotiation uses, so that it cannot say anything else than the node does.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.uid import UID

from node import __version__
from node.config import DestinationSettings, Settings
from node.dicom_net import presentation

RESULTS = {
    "1.2.840.10008.5.1.4.1.1.88.34": "result (default)",
    "1.2.840.10008.5.1.4.1.1.88.33": "result where the destination takes no Comprehensive 3D SR",
    "1.2.840.10008.5.1.4.1.1.88.22": "result where the destination takes Enhanced SR only",
    "1.2.840.10008.5.1.4.1.1.88.59": "key objects; rejection notes",
    "1.2.840.10008.5.1.4.1.1.7.4": "heatmap (default)",
    "1.2.840.10008.5.1.4.1.1.7": "heatmap where the destination takes no multi-frame capture",
    "1.2.840.10008.5.1.4.1.1.30": "parametric map, where configured",
}
"""SOP classes that dicom_sr makes, and what for."""


def _name(uid: str) -> str:
    return UID(uid).name


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def statement(settings: Settings) -> str:
    """Return the statement. No patient data, no secrets."""
    parts = [
        ["# DICOM conformance statement of falx", ""],
        [f"falx {__version__}, application entity **{settings.reception.ae_title}**. RESEARCH USE ONLY.", ""],
        _overview(),
        _reception(settings),
        _commitment(settings),
        _announcements(),
        _security(settings),
        *[_destination(settings, destination) for destination in settings.destinations],
        _objects(),
    ]
    return "\n".join(line for part in parts for line in part)


def _overview() -> list[str]:
    return [
        "## Overview",
        "",
        "falx receives studies (Storage SCP), analyses head CT and T2 head MRI, and sends result objects to the",
        "configured destinations (Storage SCU, Storage Commitment SCU, Query SCU for read-back). It is no archive.",
        "",
    ]


def _reception(settings: Settings) -> list[str]:
    reception = settings.reception
    callers = ", ".join(c.ae_title for c in reception.callers) or "none configured"
    if reception.accept_unknown_callers:
        callers = "any (accept_unknown_callers)"
    rows = [(_name(uid), uid, "analysed") for uid in presentation.FOR_ANALYSIS]
    rows += [(_name(uid), uid, "stored, not for analysis, purged") for uid in presentation.NOT_FOR_ANALYSIS]
    syntaxes = [(_name(uid), uid) for uid in presentation.TRANSFER_SYNTAXES]
    return [
        "## Storage SCP",
        "",
        f"Listens on port {reception.port}; calling AE titles: {callers}; called AE title: {reception.ae_title}.",
        f"At most {reception.max_associations} associations, maximum PDU {reception.max_pdu_bytes} bytes, objects",
        f"up to {reception.max_object_mb} MB. Success (0x0000) is answered only after the bytes are on stable storage.",
        "Refusals: 0xA700 out of resources, 0xC000 cannot understand (the bytes are kept in quarantine).",
        "Instances are stored as sent (no coercion). Of two instances with one SOP Instance UID the first is kept.",
        "Received instances are kept until the results of their study are confirmed, then purged by rule.",
        "",
        *_table(("SOP class", "UID", "use"), rows),
        "Transfer syntaxes, in order of preference:",
        "",
        *_table(("transfer syntax", "UID"), syntaxes),
    ]


def _commitment(settings: Settings) -> list[str]:
    as_scp = (
        "As SCP, falx commits only what its configured retention holds and answers Failed SOP Sequence for the rest."
        if settings.reception.commit_for_others
        else "As SCP it is not offered: falx is not an archive (`reception.commit_for_others: false`)."
    )
    return [
        "## Storage Commitment Push Model",
        "",
        "As SCU, falx asks for commitment of every result it sends; it accepts N-EVENT-REPORT on the same association",
        "or on a new one opened by the destination (SCP/SCU role selection).",
        as_scp,
        "",
    ]


def _announcements() -> list[str]:
    return [
        "## Modality Performed Procedure Step, Instance Availability Notification (SCP)",
        "",
        "N-CREATE and N-SET are accepted from allowed callers and only read: a series counts as complete once every",
        "instance that a completed step or a notification lists is held. Procedure steps are not kept.",
        "",
    ]


def _security(settings: Settings) -> list[str]:
    how = "TLS 1.2 or newer with mutual authentication (BCP 195 profile)" if settings.reception.tls.enabled else "none"
    return ["## Secure transport", "", f"Reception: {how}. Character sets: results are ISO_IR 192 (UTF-8).", ""]


def _destination(settings: Settings, destination: DestinationSettings) -> list[str]:
    return [
        f"## Storage SCU to {destination.ae_title} ({destination.name})",
        "",
        f"{destination.host}:{destination.port}, {'TLS' if destination.tls.enabled else 'no TLS'}; structured report:"
        f" {destination.sr}; heatmap: {destination.heatmap};",
        f"key objects: {'yes' if destination.key_objects else 'no'};"
        f" parametric map: {'yes' if destination.parametric_map else 'no'}; IOCM rejection notes:"
        f" {'yes' if destination.rejection_notes else 'no'}; confirmation: {destination.confirm}.",
        "",
    ]


def _objects() -> list[str]:
    rows = [(_name(uid), uid, use) for uid, use in RESULTS.items()]
    return [
        "## Objects made by falx",
        "",
        "TID 1500 Imaging Measurement Report with TID 1501 and TID 1410 groups; every object carries Content",
        "Qualification RESEARCH and Contributing Equipment with a Device UID.",
        "",
        *_table(("SOP class", "UID", "use"), rows),
    ]
