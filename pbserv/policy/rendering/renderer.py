"""The ruling as each boot loader reads it.

One rule: whatever is wrong with a template or a bundle's text, the device gets something that ends well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pbserv.policy.decide import Ruling
from pbserv.policy.documents import PolicyError
from pbserv.policy.model import Bundle, Installer
from pbserv.policy.rendering import ipxe, others, samples
from pbserv.policy.rendering.engine import RenderError, Templates, Values, render_text
from pbserv.policy.rendering.facts import BootFacts, ipxe_text, one_line
from pbserv.policy.rendering.installers import LEAVES
from pbserv.policy.rendering.places import Places
from pbserv.policy.rendering.plan import LINUX_KINDS, Load, bundle_of, load_of
from pbserv.registry.records import BundleKind
from pbserv.types import Verdict

__all__ = ["BootFacts", "RenderError", "Renderer"]


def _raise(fault: RenderError) -> None:
    raise fault


class Renderer:
    """``overrides``: the administrator's templates. ``on_fault`` is told of one that fails; the shipped one is used
    then. Without it the fault is raised."""

    def __init__(self, overrides: Path | None, on_fault: Callable[[RenderError], None] = _raise) -> None:
        self._templates = Templates(overrides)
        self._on_fault = on_fault

    def check(self) -> None:
        """Renders all there is with sample devices. Raises RenderError for the first template that is broken."""
        self._templates.check_names()
        strict = Renderer.__new__(Renderer)
        strict._templates, strict._on_fault = self._templates, _raise
        for ruling, facts in samples.rulings():
            strict.ipxe(ruling, facts)
            strict.pxelinux(ruling, facts)
            strict.grub(ruling, facts)
            strict.settings(ruling, facts)
            for leaf in ("config.txt", "cmdline.txt"):
                strict.raspberrypi(ruling, facts, leaf)
        for sent in (False, True):
            strict.bootstrap("http://192.0.2.1:8080", sent=sent)
        strict._render("fault.ipxe.j2", ipxe.values(*samples.first()))

    def bootstrap(self, url: str, *, sent: bool = False) -> str:
        """The script that is the same for everybody: it asks for the device's own.

        ``sent``: the server at ``url`` is another one, and is told so, lest two servers send a client back and forth.
        """
        return self._render("bootstrap.ipxe.j2", {"url": url, "sent": sent})

    def ipxe(self, ruling: Ruling, facts: BootFacts) -> str:
        """An iPXE script. A bundle whose script cannot be rendered becomes one that says so and reports failure."""
        values = ipxe.values(ruling, facts)
        verdict = ruling.decision.verdict
        if verdict is Verdict.MENU:
            return self._render("menu.ipxe.j2", values | ipxe.menu_values(ruling, facts))
        if verdict in ipxe.VERDICTS:
            return self._render(ipxe.VERDICTS[verdict], values)
        try:
            load = self._load(ruling, facts)
            script = "" if load is None else self._script(load, facts)
        except (RenderError, PolicyError) as fault:
            return self._faulty(fault, values, facts)
        if load is None:
            return self._render("silent.ipxe.j2", values)
        values |= ipxe.load_values(load, facts, script)
        return self._render(ipxe.TEMPLATES.get(load.kind, "client.ipxe.j2"), values)

    def pxelinux(self, ruling: Ruling, facts: BootFacts) -> str | None:
        """What stands below ``pxelinux.cfg/``. None: the device's loader is not ours to configure (verdict loader)."""
        if ruling.decision.verdict is Verdict.LOADER:
            return None
        load = self._load_or_none(ruling, facts)
        return self._render("pxelinux.cfg.j2", others.pxelinux_values(ruling, facts, load))

    def grub(self, ruling: Ruling, facts: BootFacts) -> str | None:
        """``grub.cfg``, for BIOS and UEFI. None: as with PXELINUX."""
        if ruling.decision.verdict is Verdict.LOADER:
            return None
        load = self._load_or_none(ruling, facts)
        return self._render("grub.cfg.j2", others.grub_values(ruling, facts, load))

    def raspberrypi(self, ruling: Ruling, facts: BootFacts, leaf: str = "config.txt") -> str | None:
        """``config.txt`` or ``cmdline.txt`` of a bundle of kind linux or install. None: there is no such bundle."""
        if leaf not in ("config.txt", "cmdline.txt") or ruling.decision.verdict is not Verdict.BOOT:
            return None
        values = others.pi_values(ruling, facts, self._load_or_none(ruling, facts))
        return None if values is None else self._render(f"{leaf}.j2", values)

    def settings(self, ruling: Ruling, facts: BootFacts) -> str:
        """``settings.txt`` in the style of ZENworks: lines ``PARAM=value``."""
        try:
            bundle = bundle_of(ruling)
        except PolicyError:
            bundle = None
        return self._render("settings.txt.j2", others.settings_values(ruling, facts, bundle))

    def pixiecore(self, ruling: Ruling, facts: BootFacts) -> dict[str, str | list[str]] | None:
        """The answer of pixiecore's API. None: the device is not to be booted (404 there).

        What is no plain kernel, and what the loader has to report, is given as ``ipxe-script``.
        """
        if ruling.decision.verdict not in (Verdict.BOOT, Verdict.MENU):
            return None
        message = one_line(ruling.decision.reason)
        load = self._load_or_none(ruling, facts) if ruling.decision.verdict is Verdict.BOOT else None
        if load is None or load.kind not in LINUX_KINDS or load.reports or "{{" in load.arguments:
            return {"ipxe-script": self.ipxe(ruling, facts), "message": message}
        places = Places(facts)
        where = places.client if load.client else places.url
        return {
            "kernel": where(load.kernel), "initrd": [where(each) for each in load.initrd], "cmdline": load.arguments,
            "message": message,
        }  # fmt: skip

    def answer(self, bundle: Bundle, facts: BootFacts, leaf: str) -> str | None:
        """An answer file of an installation for this device. None: the bundle has no such file. Raises RenderError."""
        installer = bundle.installer
        if bundle.kind is not BundleKind.INSTALL or installer is None or leaf not in LEAVES[installer]:
            return None
        values = _answer_values(bundle, facts)
        if leaf == "vendor-data":
            return ""
        if leaf == "meta-data" and not bundle.meta:
            return f"instance-id: pbserv-{facts.hyphens}\nlocal-hostname: {values['hostname']}\n"
        text = bundle.meta if leaf == "meta-data" else bundle.answer
        where = f"{leaf} of bundle {bundle.name}"
        return render_text(text, values, where, xml=installer is Installer.AUTOYAST)

    def _load(self, ruling: Ruling, facts: BootFacts) -> Load | None:
        bundle = bundle_of(ruling)
        return None if bundle is None else load_of(bundle, ruling, facts)

    def _load_or_none(self, ruling: Ruling, facts: BootFacts) -> Load | None:
        if ruling.decision.verdict is not Verdict.BOOT:
            return None
        try:
            return self._load(ruling, facts)
        except PolicyError as fault:
            self._on_fault(RenderError("bundle", 0, str(fault)))
            return None

    def _script(self, load: Load, facts: BootFacts) -> str:
        if load.kind is not BundleKind.IPXE:
            return ""
        places = Places(facts)
        values = ipxe.device_values(facts) | {"done_url": places.done(), "failed_url": places.done(ok=False)}
        return render_text(load.script, values, f"script of bundle {load.title}")

    def _faulty(self, fault: PolicyError | RenderError, values: dict[str, object], facts: BootFacts) -> str:
        self._on_fault(fault if isinstance(fault, RenderError) else RenderError("bundle", 0, str(fault)))
        reported = Places(facts).done(ok=False)
        failed_url = f"{reported}&reason=its%20script%20cannot%20be%20rendered" if reported else ""
        return self._render("fault.ipxe.j2", values | {"reason": ipxe_text(str(fault)), "failed_url": failed_url})

    def _render(self, name: str, values: Values) -> str:
        if self._templates.overrides is None:
            return self._templates.shipped(name, values)
        try:
            return self._templates.own(name, values)
        except RenderError as fault:
            self._on_fault(fault)
            return self._templates.shipped(name, values)


def _answer_values(bundle: Bundle, facts: BootFacts) -> dict[str, object]:
    places = Places(facts)
    return {
        "mac": facts.mac, "mac_hyphens": facts.hyphens, "name": one_line(facts.name), "hostname": _hostname(facts),
        "uuid": one_line(facts.uuid), "serial": one_line(facts.serial), "asset": one_line(facts.asset),
        "arch": str(facts.arch or ""), "labels": {name: one_line(value) for name, value in facts.labels.items()},
        "bundle": bundle.name, "url": facts.url, "files": places.files, "server": facts.server,
        "session": facts.session, "token": facts.token, "answers": places.answers,
        "done_url": places.done(), "failed_url": places.done(ok=False),
    }  # fmt: skip


def _hostname(facts: BootFacts) -> str:
    """The device's name as DNS has names; from its address where it has none."""
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in facts.name.lower()).strip("-")[:63].strip("-")
    return label or f"pb-{facts.mac.replace(':', '')}"
