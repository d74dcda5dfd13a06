"""Whom this host believes when it calls a server over TLS: certificates of a file, those of the system, or one that is
known by its SHA-256 fingerprint.

One rule: nothing is sent before the other side has proved with its key that it is the one that was meant; a pinned
certificate is looked at in every handshake.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from typing import Final

_FINGERPRINT: Final = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)


def fingerprint_of(text: str) -> str:
    """64 small hexadecimal digits of a fingerprint as it is printed, with colons or without; empty: it is none."""
    found = _FINGERPRINT.fullmatch(text.strip())
    return found[1].replace(":", "").lower() if found else ""


def trusting(certificates: str = "") -> ssl.SSLContext:
    """TLS 1.2 and newer with a server whose certificate one of ``certificates`` (PEM) has signed, or is; empty: one
    of those that this host trusts. Raises ssl.SSLError, ValueError for a text without certificates.
    """
    context = ssl.create_default_context(cadata=certificates or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificates:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a server's own certificate is no authority
    return context


def pinning(fingerprint: str) -> ssl.SSLContext:
    """TLS 1.2 and newer with the one certificate that has this fingerprint (:func:`fingerprint_of`), whatever names
    and dates are in it. Raises ssl.SSLCertVerificationError in the handshake for every other one.
    """

    def check(certificate: bytes | None) -> None:
        came = hashlib.sha256(certificate or b"").hexdigest()
        if came != fingerprint:
            raise ssl.SSLCertVerificationError(
                f"it shows another certificate than the one that is trusted: SHA-256 {spelled(came)}"
            )

    class PinnedObject(ssl.SSLObject):  # of asyncio and uvloop
        def do_handshake(self) -> None:
            super().do_handshake()
            check(self.getpeercert(binary_form=True))

    class PinnedSocket(ssl.SSLSocket):  # of plain sockets
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self.getpeercert(binary_form=True))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the fingerprint says more than a name would; the handshake proves the key
    context.sslobject_class, context.sslsocket_class = PinnedObject, PinnedSocket
    return context


def spelled(digits: str) -> str:
    """``AA:BB:...``"""
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()
