"""Whom the command line believes to be its server: PBSERV_CA is a file of certificates, or a SHA-256 fingerprint.

One rule: no token is sent before the other side has proved with its key that it is the one that was meant.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from typing import Final
from urllib.parse import urlsplit

from pbserv.errors import PbservError

_FINGERPRINT: Final = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)
_HTTPS_PORT: Final = 443


def trusting(url: str, trust: str, timeout_s: float) -> ssl.SSLContext:
    """``trust``: PBSERV_CA; empty: the certificates that this host trusts. Raises PbservError."""
    found = _FINGERPRINT.fullmatch(trust.strip())
    if found:
        return _pinned(url, found[1].replace(":", "").lower(), timeout_s)
    try:
        context = ssl.create_default_context(cafile=trust or None)
    except (OSError, ssl.SSLError) as fault:
        reason = fault.strerror if isinstance(fault, FileNotFoundError | PermissionError) else "no certificates in it"
        raise PbservError(
            f"PBSERV_CA: {trust}: {reason}; write the path of a PEM file, or the SHA-256 fingerprint that the server"
            " prints when it starts"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _pinned(url: str, wanted: str, timeout_s: float) -> ssl.SSLContext:
    """Believes the one certificate with this fingerprint, whatever names are in it.

    The certificate is fetched first, and nothing is sent on that connection.
    """
    certificate = _shown(url, timeout_s)
    came = hashlib.sha256(certificate).hexdigest()
    if came != wanted:
        raise PbservError(
            f"{url} shows another certificate than PBSERV_CA names: SHA-256 {_spelled(came)}; if the server has made a"
            " new one, take the fingerprint from its own screen or, on the server, from: pbserv status"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    return context


def _shown(url: str, timeout_s: float) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    parts = urlsplit(url)
    try:
        address = (parts.hostname or "", parts.port or _HTTPS_PORT)
        with socket.create_connection(address, timeout_s) as raw, context.wrap_socket(raw) as connection:
            return connection.getpeercert(binary_form=True) or b""
    except ssl.SSLError as fault:
        raise PbservError(f"{url}: {fault.reason or fault}; is this the port of HTTPS?") from None
    except (OSError, ValueError) as fault:
        raise PbservError(f"nobody answers at {url}: {fault}") from None


def _spelled(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()
