"""Who may call falx, and for what: application entity titles and hosts."""

from __future__ import annotations

import ipaddress
import socket
from enum import Enum

from node.config import Settings


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
