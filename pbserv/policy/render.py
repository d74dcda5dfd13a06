"""Turns a decision into the text that a boot loader runs (Jinja2 templates, iPXE scripts)."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from pbserv.types import Decision, Verdict

_TEMPLATES = Environment(
    loader=PackageLoader("pbserv.policy"),
    undefined=StrictUndefined,
    autoescape=False,  # noqa: S701 - iPXE scripts, not HTML; one_line() below keeps values inside their line
    trim_blocks=True,
    keep_trailing_newline=True,
)
_SCRIPTS = {
    Verdict.SILENT: "silent.ipxe.j2",
    Verdict.LOCAL: "local.ipxe.j2",
    Verdict.LOADER: "local.ipxe.j2",
    Verdict.MENU: "menu.ipxe.j2",
    Verdict.BOOT: "work.ipxe.j2",
}


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What a script needs besides the decision. ``url`` has no slash at its end; ``token`` is the work's own."""

    mac: str
    name: str
    url: str
    server: str
    token: str
    arguments: str


def bootstrap(url: str, *, sent: bool = False) -> str:
    """The script that is the same for everybody: it asks for the device's own.

    ``sent``: the server at ``url`` is another one, and is told so, lest two servers send a client back and forth.
    """
    return _TEMPLATES.get_template("bootstrap.ipxe.j2").render(url=url, sent=sent)


def boot_script(decision: Decision, facts: BootFacts) -> str:
    """The decision as an iPXE script."""
    return _TEMPLATES.get_template(_SCRIPTS[decision.verdict]).render(
        verdict=decision.verdict.value,
        reason=one_line(decision.reason),
        mac=facts.mac,
        name=one_line(facts.name),
        url=facts.url,
        server=facts.server,
        token=facts.token,
        arguments=one_line(facts.arguments),
    )


def one_line(text: str) -> str:
    """iPXE expands ``${...}`` and ends a command at a line end, ``||`` or ``&&``: values must not bring any."""
    return "".join(c for c in text if c.isprintable()).replace("$", "").replace("|", "").replace("&", "")
