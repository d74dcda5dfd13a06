"""The certificate of the HTTPS listener: the administrator's files, or one that this server makes for itself.

One rule: a pair is checked whole before it is used; what is wrong is said with the key of the configuration, the file
and what to do, so that neither a start nor a reload brings up a listener that nobody can talk to.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pbserv.errors import StartError
from pbserv.net.interfaces import addresses, addresses6
from pbserv.registry.tokens import write_private

LIFETIME: Final = timedelta(days=825)
"""More is refused by some clients, also for certificates that were trusted by hand."""
RENEW_BEFORE: Final = timedelta(days=30)
_CERTIFICATE, _KEY = "certificate.pem", "key.pem"


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """``certificate`` and ``key`` are PEM files; both None: a certificate of our own, kept in ``directory``.

    ``key`` alone may be None: then it stands in the file of the certificate.
    """

    port: int
    certificate: Path | None
    key: Path | None
    directory: Path


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate (with its chain) and its key, which belong together. ``fingerprint``: SHA-256, ``AA:BB:...``."""

    certificate: Path
    key: Path
    fingerprint: str

    def load_into(self, context: ssl.SSLContext) -> None:
        """Connections that ``context`` makes from now on show this certificate; those that are there stay."""
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as fault:
            raise StartError(f"TLSCertificate: {self.certificate} with {self.key}: {fault}") from None


def pair_of(settings: TlsSettings, now: datetime | None = None) -> Pair:
    """The pair to show, made first where it is ours to make. Raises StartError."""
    today = now or datetime.now(UTC)
    if settings.certificate is not None:
        return _checked(settings.certificate, settings.key or settings.certificate, today)
    if settings.key is not None:
        raise StartError(f"TLSKey: {settings.key}: there is a key without a certificate; set TLSCertificate too")
    return _own(settings.directory, today)


def new_context(pair: Pair) -> ssl.SSLContext:
    """TLS 1.2 and newer, with ``pair``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    pair.load_into(context)
    return context


def fingerprint_of(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _checked(certificate: Path, key: Path, now: datetime) -> Pair:
    first = _read_certificate(certificate)
    if _public(_read_key(key)) != first.public_key().public_bytes(*_PUBLIC):
        raise StartError(f"TLSKey: {key} is not the key of the certificate in {certificate}; give both of one pair")
    if first.not_valid_after_utc <= now:
        raise StartError(
            f"TLSCertificate: {certificate} has expired on {first.not_valid_after_utc:%Y-%m-%d}; get a new one, then:"
            " pbserv force-reload"
        )
    if first.not_valid_before_utc > now:
        raise StartError(
            f"TLSCertificate: {certificate} is not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC;"
            " see whether the clock of this host is right"
        )
    pair = Pair(certificate, key, fingerprint_of(first))
    pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # OpenSSL may refuse what looks well, such as a weak key
    return pair


_PUBLIC: Final = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public(key: PrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(*_PUBLIC)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError:
        raise StartError(
            f"{name}: {path}: permission denied; make it readable for the user {_login()}, who runs this server"
        ) from None
    except OSError as fault:
        raise StartError(f"{name}: {path}: {fault.strerror}") from None


def _login() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(_read("TLSCertificate", path))[0]
    except ValueError:
        raise StartError(f"TLSCertificate: {path} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
                         ) from None  # fmt: skip


def _read_key(path: Path) -> PrivateKeyTypes:
    data = _read("TLSKey", path)
    try:
        return serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise StartError(f"TLSKey: {path} is encrypted, and nobody is there at a start to type the passphrase;"
                         f" decrypt it: openssl pkey -in {path}") from None  # fmt: skip
    except Exception:  # cryptography has no common base for what a key can suffer from
        raise StartError(f"TLSKey: {path} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)") from None


def _own(directory: Path, now: datetime) -> Pair:
    """Ours, made anew when it is missing, damaged or soon over."""
    certificate, key = directory / _CERTIFICATE, directory / _KEY
    try:
        pair = _checked(certificate, key, now)
        if _read_certificate(certificate).not_valid_after_utc - now > RENEW_BEFORE:
            return pair
    except StartError:
        pass
    try:
        directory.mkdir(mode=0o750, exist_ok=True)
        secret = ec.generate_private_key(ec.SECP256R1())
        made = _self_signed(secret, socket.gethostname(), _all_addresses(), now)
        certificate.unlink(missing_ok=True)  # never an old certificate beside a new key
        write_private(key, secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                serialization.NoEncryption()))  # fmt: skip
        write_private(certificate, made.public_bytes(serialization.Encoding.PEM))
        certificate.chmod(0o644)
    except OSError as fault:
        raise StartError(f"{directory}: no certificate can be made there: {fault.strerror}") from None
    return Pair(certificate, key, fingerprint_of(made))


def _all_addresses() -> list[str]:
    found = [each.address for each in (*addresses(), *addresses6())]
    return list(dict.fromkeys(["127.0.0.1", "::1", *found]))


def _self_signed(
    key: ec.EllipticCurvePrivateKey, host: str, hosts_addresses: Iterable[str], now: datetime
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64] or "pbserv")])
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys((host, "localhost")) if _plain(name)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in hosts_addresses]
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of clients differ
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # Whoever trusts it trusts this server alone: it can sign no other.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _plain(name: str) -> bool:
    return bool(name) and name.isascii() and all(part for part in name.split("."))
