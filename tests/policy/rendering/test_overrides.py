"""Templates of the administrator: in the place of ours; broken ones are named with file and line and fail no boot."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pbserv.policy.model import Bundle, Installer
from pbserv.policy.rendering import samples
from pbserv.policy.rendering.engine import MAX_OUTPUT, RenderError, Templates, render_text
from pbserv.policy.rendering.installers import LEAVES
from pbserv.policy.rendering.renderer import Renderer
from pbserv.registry.records import BundleKind

LOCAL = samples.named()["verdict-local"]


def test_shipped_templates_are_whole() -> None:
    Renderer(None).check()


def test_override_takes_the_place(tmp_path: Path) -> None:
    (tmp_path / "local.ipxe.j2").write_text("#!ipxe\necho own {{ mac }} {{ labels.product }}\n")
    renderer = Renderer(tmp_path)
    renderer.check()
    assert renderer.ipxe(LOCAL, samples.FACTS) == "#!ipxe\necho own 52:54:00:12:34:56 Standard PC\n"
    assert "DEFAULT pbserv" in (renderer.pxelinux(LOCAL, samples.FACTS) or "")


def test_overridden_part_of_shipped_templates(tmp_path: Path) -> None:
    (tmp_path / "failed.ipxe.j2").write_text(":failed\n{% include '_beep.j2' %}shell\n")
    (tmp_path / "_beep.j2").write_text("echo beep\n")
    renderer = Renderer(tmp_path)
    renderer.check()
    assert renderer.ipxe(samples.named()["bundle-linux"], samples.FACTS).endswith(":failed\necho beep\nshell\n")


@pytest.mark.parametrize(("text", "line"), [
    ("#!ipxe\n{% if %}\n", 2),
    ("#!ipxe\n\n{{ colour }}\n", 3),
    ("#!ipxe\n{{ 1 // 0 }}\n", 2),
    ("#!ipxe\n{% include 'nowhere.j2' %}\n", 2),
    ("{{ 'x' | nofilter }}", 1),
])  # fmt: skip
def test_broken_override_is_named_and_boots_nevertheless(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "local.ipxe.j2"
    path.write_text(text)
    faults: list[RenderError] = []
    renderer = Renderer(tmp_path, faults.append)
    with pytest.raises(RenderError, match=f"local.ipxe.j2, line {line}: "):
        renderer.check()
    assert faults == []
    assert renderer.ipxe(LOCAL, samples.FACTS) == Renderer(None).ipxe(LOCAL, samples.FACTS)
    assert [(fault.where, fault.line) for fault in faults] == [(str(path), line)]


def test_override_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "grub.cfg.j2").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RenderError, match=r"grub\.cfg\.j2"):
        Renderer(tmp_path).check()


def test_file_that_no_template_has_the_name_of(tmp_path: Path) -> None:
    (tmp_path / "lokal.ipxe.j2").write_text("")
    with pytest.raises(RenderError, match=r"lokal\.ipxe\.j2: no template has this name"):
        Renderer(tmp_path).check()
    with pytest.raises(RenderError, match="cannot be read"):
        Renderer(tmp_path / "missing").check()


def test_every_template_is_tried(tmp_path: Path) -> None:
    """Each override with a fault in it is found, so that none waits for the device that needs it."""
    for name in Templates.names():
        path = tmp_path / name
        path.write_text("{{ nothing_of_this_name }}")
        with pytest.raises(RenderError, match=name):
            Renderer(tmp_path).check()
        path.unlink()


def _install(answer: str, installer: Installer = Installer.KICKSTART, meta: str = "") -> Bundle:
    return Bundle(name="b", kind=BundleKind.INSTALL, kernel="k", installer=installer, answer=answer, meta=meta)


def test_answer_of_this_device() -> None:
    facts = replace(samples.FACTS, name="Büro 7 / $x", serial="it's <b>", labels={"product": "x: y"})
    said = "{{ hostname }} {{ serial | shell }} {{ labels.product | yaml }} {{ done_url }}"
    text = Renderer(None).answer(_install(said), facts, "ks.cfg")
    assert text == """b-ro-7----x 'it'"'"'s <b>' "x: y" http://192.0.2.1:8080/boot/done/17.5ec2e7?ok=1"""
    xml = Renderer(None).answer(_install("<a>{{ serial }}</a>", Installer.AUTOYAST), facts, "autoinst.xml")
    assert xml == "<a>it&#39;s &lt;b&gt;</a>"
    meta = Renderer(None).answer(_install("x", Installer.AUTOINSTALL, "id: {{ mac }}\n"), facts, "meta-data")
    assert meta == "id: 52:54:00:12:34:56\n"


@pytest.mark.parametrize("text", [
    "\n{{ ''.__class__.__mro__ }}",
    "\n{{ mac.__init__.__globals__ }}",
    "\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "\n{% for a in range(90000) %}{{ answers }}{% endfor %}",
    "\n{{ 'x' * 10000000000 }}",
    "\n{{ [1] * 10000000000 }}",
    "\n{{ 9 ** 9 ** 9 ** 9 }}",
    "\n{{ '%1000000000d' % 1 }}",
    "\n{% include 'local.ipxe.j2' %}",
    "\n{{ labels.update({'a': 1}) }}",
    "\n{{ nothing }}",
    "\n{% if %}",
])  # fmt: skip
def test_answers_are_kept_in_bounds(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(RenderError, match=r"ks\.cfg of bundle b(, line 2)?: "):
        Renderer(None).answer(_install(text), samples.FACTS, "ks.cfg")
    assert time.monotonic() - began < 5


def test_longest_answer() -> None:
    assert len(render_text("{{ 'x' * n }}", {"n": MAX_OUTPUT}, "x")) == MAX_OUTPUT
    with pytest.raises(RenderError, match="longer than"):
        render_text("a{{ 'x' * n }}", {"n": MAX_OUTPUT}, "x")


def test_broken_script_of_a_bundle_says_so_on_the_device() -> None:
    faults: list[RenderError] = []
    bundle = Bundle(name="own", kind=BundleKind.IPXE, script="#!ipxe\n{{ colour }}\n")
    text = Renderer(None, faults.append).ipxe(samples.booting(bundle), samples.FACTS)
    assert "script of bundle own, line 2: 'colour' is undefined" in text
    assert "?ok=0&reason=" in text
    assert text.rstrip().endswith("iseq ${platform} efi && exit 1 || exit")
    assert len(faults) == 1


def test_script_of_a_bundle_keeps_ipxe_expansions() -> None:
    script = "#!ipxe\n# {{ name }}\nchain {{ files }}/x?mac=${mac:hexhyp}\n"
    ruling = samples.booting(Bundle(name="own", kind=BundleKind.IPXE, script=script))
    text = Renderer(None).ipxe(ruling, replace(samples.FACTS, name="a\n${b} || reboot"))
    assert "# a {b} reboot\n" in text
    assert "/files/x?mac=${mac:hexhyp}\n" in text


_ITEMS = "{% set l = range(900) | list %}"
_GROWING = "{% set ns = namespace(s='x' * 1000) %}{% for i in range(60) %}{% set ns.s = ACTION %}{% endfor %}"


@pytest.mark.parametrize("text", [
    _ITEMS + "{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}",
    _ITEMS + "{% for a in l %}{% for b in l if (l | sum) < 0 %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    _ITEMS + "{% for a in l recursive %}{{ loop(l) }}{% endfor %}",
    _ITEMS + "{{ ([l] * 100) | map('map', 'string') | map('list') | list | length }}{{ [l] * 262000 | length }}",
    _GROWING.replace("ACTION", "ns.s ~ ns.s"),
    _GROWING.replace("ACTION", "ns.s + ns.s"),
    _GROWING.replace("ACTION", "ns.s.replace('x', ns.s)"),
    _GROWING.replace("ACTION", "ns.s | replace('x', ns.s)"),
    _GROWING.replace("ACTION", "ns.s.join(ns.s)"),
    _GROWING.replace("ACTION", "ns.s | join(ns.s)"),
    _GROWING.replace("ACTION", "[ns.s, ns.s]") + "{{ ns.s }}",
    _GROWING.replace("ACTION", "[ns.s, ns.s]") + "{{ ns.s | string | length }}",
    _GROWING.replace("'x' * 1000", "9").replace("ACTION", "ns.s * ns.s"),
    "{% set x %}{% for i in range(50000) %}" + "y" * 9000 + "{% endfor %}{% endset %}",
    "{{ 'x' | center(2000000000) }}",
    "{{ 'x'.ljust(2000000000) }}",
    "{{ 'x' | indent('y' * 200000) | indent('y' * 200000) | length }}{{ ('x\n' * 9000) | indent('y' * 9000) }}",
    "{{ '{:>2000000000}'.format(1) }}",
    "{{ '{:>2000000000}' | attr('format')(1) }}",
    "{{ '%2000000000d' | format(1) }}",
    "{{ (1).to_bytes(2000000000, 'big') }}",
    "{{ '\t'.expandtabs(2000000000) }}",
    "{{ ('x' * 200000) | list | map('center', 100000) | join | length }}",
])  # fmt: skip
@pytest.mark.parametrize("installer", [Installer.KICKSTART, Installer.AUTOYAST])
def test_no_text_takes_much_time_or_memory(text: str, installer: Installer) -> None:
    """The server renders them where it answers packets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    began = time.monotonic()
    resource.setrlimit(resource.RLIMIT_AS, (held + (512 << 20), hard))
    try:
        with pytest.raises(RenderError):
            Renderer(None).answer(_install(text, installer), samples.FACTS, LEAVES[installer][0])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.monotonic() - began < 3


def test_what_texts_are_used_for_works() -> None:
    text = """\
{%- macro part(name, size) %}part {{ name }} --size={{ size }}
{% endmacro -%}
{{ part("/", 1024 * 8) }}{% for a in labels.disks.split(",") if a %}{{ loop.index }}:{{ a | upper }} {% endfor %}
{{ "%02d" if false else (7 | string).zfill(2) }} {{ "a,b" | replace(",", ";") }} {{ ["x", "y"] | join("-") }}
{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}
{{- " " ~ labels.memory | int * 1048576 }}
{{ labels.items() | map("first") | sort | join(" ") }} {{ ("b " ~ labels.disks).title() }}
{{- labels.no | default(" none") }}
"""
    values = {"labels": {"disks": "sda,sdb", "memory": "65536"}}
    assert render_text(text, values, "x") == (
        "part / --size=8192\n1:SDA 2:SDB \n07 a;b x-y\n10 68719476736\ndisks memory B Sda,Sdb none\n"
    )
    assert render_text("{{ '<' ~ v }}", {"v": "&"}, "x", xml=True) == "&lt;&amp;"
