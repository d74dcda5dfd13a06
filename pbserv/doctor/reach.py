"""What the policy and HTTPS lean on, tried out: certificate, database, the other server that decides, templates.

One rule: nothing is changed by looking: no certificate is made, no device is asked about, no template runs that anybody
but root can write.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from jinja2 import Environment, TemplateSyntaxError
from sqlalchemy import make_url

from pbserv.doctor.facts import Certificate, Database, Elsewhere
from pbserv.doctor.handed_out import Stock, stock_of
from pbserv.doctor.places import file_places
from pbserv.errors import StartError
from pbserv.imaging.config import PbservConf
from pbserv.policy.oracles.build import oracle_settings
from pbserv.policy.oracles.exchange import exchange, new_client
from pbserv.policy.oracles.hook import HookSettings
from pbserv.policy.oracles.preboot_server import CONNECT_S, MOST_BYTES, ServerSettings
from pbserv.policy.oracles.questions import NoAnswer
from pbserv.policy.rendering.renderer import Renderer, RenderError
from pbserv.registry.engine import shown
from pbserv.registry.faults import first_line
from pbserv.registry.registry import Registry
from pbserv.settings import Settings
from pbserv.web.tls import TlsSettings, pair_of

DATABASE_S: Final = 5.0
SERVER_S: Final = 3.0
NAMES_S: Final = 2.0
MOST_NAMES: Final = 8
_OWN: Final = "certificate.pem"
_UNDERSTOOD: Final = 422  # the question of no device: the token was looked at before it
T = TypeVar("T")


def certificate(settings: Settings) -> Certificate | None:
    """What HTTPS shows, or will; None: there is no HTTPS, or the server has not made its certificate yet."""
    conf = settings.pbserv
    if conf.https_port is None:
        return None
    directory = conf.state_directory / "tls"
    own = conf.tls_certificate is None and conf.tls_key is None
    path = directory / _OWN if own else conf.tls_certificate
    if own and not (directory / _OWN).is_file():
        return None
    try:
        if not own:
            pair_of(TlsSettings(conf.https_port, conf.tls_certificate, conf.tls_key, directory))
        assert path is not None  # noqa: S101 - pair_of refuses a key alone
        first = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except PermissionError:
        return None  # we are not root
    except (StartError, OSError, ValueError) as fault:
        if "permission denied" in str(fault) and os.geteuid() != 0:
            return None
        return Certificate(str(path or conf.tls_key), own, fault=str(fault))
    key = directory / "key.pem" if own else conf.tls_key or path
    names, addresses = _subjects(first)
    resolved = () if own else _resolved(names)
    expires = first.not_valid_after_utc.timestamp()
    return Certificate(str(path), own, expires, names, addresses, resolved, file_places(key))


def _subjects(found: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and addresses for which it is (RFC 6125: nobody reads the common name any more)."""
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return (), ()
    return (
        tuple(names.get_values_for_type(x509.DNSName)),
        tuple(str(each) for each in names.get_values_for_type(x509.IPAddress)),
    )


def _resolved(names: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses behind the names, as far as they come soon: a name server that is away must not hold us up."""
    found: list[str] = []

    def look() -> None:
        for name in names[:MOST_NAMES]:
            try:
                found.extend(str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET))
            except (OSError, UnicodeError):
                continue

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(NAMES_S)
    return tuple(dict.fromkeys(found))


def database(settings: Settings) -> tuple[Database | None, Stock]:
    """Whether RegistryURL can be used (None: the registry is a file), and what the registry names."""
    place = settings.pbserv.registry_place
    if isinstance(place, Path):
        return None, (_stock(place)[1] if place.is_file() else Stock())
    path = settings.loaded.paths.get(PbservConf)
    fault, stock = _stock(place)
    password = bool(make_url(place).password)
    return Database(shown(place), fault, password, file_places(path) if path else ()), stock


def _stock(place: Path | str) -> tuple[str, Stock]:
    """Why the registry cannot be used, and what it names; tables that are not there yet are no fault."""

    async def look() -> tuple[str, Stock]:
        registry = Registry.open(place)
        try:
            async with asyncio.timeout(DATABASE_S):
                await registry.answers()
                try:
                    return "", stock_of(await registry.loaders(), await registry.documents())
                except Exception:  # of another version, or not made yet
                    return "", Stock()
        except TimeoutError:
            return f"no answer within {DATABASE_S:.0f} s", Stock()
        except Exception as fault:  # the driver and SQLAlchemy have no common base, and any of them is the answer
            return first_line(fault), Stock()
        finally:
            await registry.close()

    return _run(look())


def elsewhere(settings: Settings) -> Elsewhere | None:
    """The other server that decides, asked something of no consequence; None: this one decides alone."""
    conf = settings.policy
    key = "PrebootServer" if conf.hook is None else "PolicyHook"
    token = conf.preboot_server_token
    if key == "PrebootServer" and token is not None and token.exists() and not os.access(token, os.R_OK):
        return None  # we are not root
    try:
        found = oracle_settings(conf, settings.pbserv.http_port, None)
    except StartError as fault:
        return Elsewhere(key, wrong=str(fault))
    match found:
        case HookSettings():
            parts = urlsplit(found.url)
            silent = _run(_connected(f"{parts.scheme}://{parts.netloc}/", found.timeout_s))
            return Elsewhere(key, parts.netloc, silent=silent)
        case ServerSettings():
            silent, refusal = _run(_decides(found))
            return Elsewhere(key, found.server, "", silent, refusal, file_places(token) if token else ())
    return None


async def _connected(url: str, timeout_s: float) -> str:
    """Why no HTTP comes from there; what it says does not matter, and a hook is asked about no device."""
    async with new_client(min(timeout_s, SERVER_S)) as client:
        try:
            async with asyncio.timeout(SERVER_S):
                await client.head(url)
        except (httpx.HTTPError, TimeoutError) as fault:
            return " ".join(str(fault).split())[:200] or f"no answer within {SERVER_S:.0f} s"
    return ""


async def _decides(server: ServerSettings) -> tuple[str, str]:
    """Why it cannot be reached, and how it refuses us. It is asked about no device: a token that is good is told so."""
    async with new_client(CONNECT_S, server.context()) as client:
        headers = {"Authorization": f"Bearer {server.token}"}
        request = client.build_request("POST", server.url, json={}, headers=headers)
        try:
            async with asyncio.timeout(SERVER_S):
                reply = await exchange(client, request, MOST_BYTES)
        except (NoAnswer, TimeoutError) as fault:
            return str(fault) or f"did not answer within {SERVER_S:.0f} s", ""
    if reply.status == _UNDERSTOOD:
        return "", ""
    said = " ".join(reply.body.decode("utf-8", "replace").split())[:200]
    return "", f"it answers {reply.status}: {said}"


def templates(directory: Path | None) -> tuple[str, ...]:
    """What is wrong with the administrator's templates: all that do not parse, else the first that does not render."""
    if directory is None:
        return ()
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix == ".j2")
        faults = [fault for path in files if (fault := _unparsed(path))]
        if not faults and _is_safe([directory, *files]):
            Renderer(directory).check()
    except RenderError as fault:
        return (str(fault),)
    except OSError as fault:
        return (f"{fault.filename}: {fault.strerror}",)
    return tuple(faults)


def _unparsed(path: Path) -> str:
    try:
        Environment(autoescape=False).parse(path.read_text("utf-8"), path.name, str(path))  # noqa: S701 - no HTML
    except TemplateSyntaxError as fault:
        return f"{path}, line {fault.lineno}: {fault.message}"
    except UnicodeDecodeError:
        return f"{path}: not UTF-8 text"
    return ""


def _is_safe(paths: list[Path]) -> bool:
    """Whether rendering them gives nobody rights that he has not: a template can run what its reader may."""
    if os.geteuid() != 0:
        return True
    modes = [path.stat() for path in paths]
    return all(mode.st_uid == 0 and not stat.S_IMODE(mode.st_mode) & 0o022 for mode in modes)


def _run(work: Coroutine[None, None, T]) -> T:
    return asyncio.run(work)
