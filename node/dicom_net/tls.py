"""TLS for DICOM associations: the BCP 195 profile (PS3.15 B.12), with certificates on both sides."""

from __future__ import annotations

import ssl

from node.config import TlsSettings
from node.errors import Misconfigured


def server_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """Return the acceptor's context, which demands a trusted client certificate; None when TLS is not configured."""
    return _context(settings, ssl.PROTOCOL_TLS_SERVER) if settings.enabled else None


def client_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """Return the requestor's context, which shows our certificate and demands a trusted one; None without TLS.

    The peer is known by its certificate chain, as DICOM nodes' certificates rarely carry their host names.
    """
    return _context(settings, ssl.PROTOCOL_TLS_CLIENT) if settings.enabled else None


def _context(settings: TlsSettings, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM")  # of TLS 1.2; 1.3 has only good ones
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(str(settings.certificate), str(settings.private_key), password=_no_password)
        context.load_verify_locations(str(settings.trusted))
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"tls: {settings.certificate}, {settings.private_key} or {settings.trusted} cannot be used: "
            f"{error.strerror or error}; all three must be readable PEM files, the key without a password"
        ) from None
    return context


def _no_password() -> str:
    return ""  # otherwise OpenSSL asks on the terminal
