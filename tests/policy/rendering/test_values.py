"""Whatever a device or a person calls itself, it stays inside of its line, in each loader's language."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.policy.model import Bundle, Menu, MenuItem
from pbserv.policy.rendering import samples
from pbserv.policy.rendering.facts import grub_text, grub_words, ipxe_text, one_line, words_of
from pbserv.policy.rendering.renderer import Renderer
from pbserv.registry.records import BundleKind
from pbserv.types import Decision

RENDERER = Renderer(None)
NASTY = "x'\n|| exit\n${net0/ip} && reboot ; # \\' \"$(halt)` {{ 7*7 }}\r\x1b[2J"


@given(st.text())
def test_ipxe_sees_one_command(text: str) -> None:
    line = ipxe_text(text)
    assert line.isprintable()
    assert "$" not in line
    assert not any(word.startswith("#") or not word.strip(";|&") for word in line.split())


def test_ipxe_keeps_the_query_of_a_url() -> None:
    """src/core/exec.c: only whole words end a command."""
    arguments = "inst.ks=http://10.0.0.1/ks?a=1&b=2;c#d x|y"
    bundle = Bundle(name="x", kind=BundleKind.LINUX, kernel="k", arguments=f"{arguments} && reboot || ; #x")
    assert f" {arguments} reboot x " in RENDERER.ipxe(samples.booting(bundle), samples.FACTS)


@given(st.text())
def test_grub_sees_one_word(text: str) -> None:
    assert grub_text(text).isprintable()
    assert not set(grub_text(text)) & set("'\"\\$`;|&<>{}#")


@given(st.text(st.characters(codec="ascii")))
@settings(max_examples=60, deadline=None)
def test_grub_reads_arguments_as_words(text: str) -> None:
    script = f"linux x {grub_words(text)}\n"
    done = subprocess.run(["grub-script-check"], input=script.encode(), capture_output=True, check=False)
    assert done.returncode == 0, (script, done.stderr)


def test_words_keep_what_is_quoted() -> None:
    assert words_of('a name="x y"  b\t"c') == ["a", 'name="x y"', "b", '"c']
    assert grub_words("""plain=1 name="x y" it's $x;y""") == """plain=1 'name=x y' 'it'\\''s' '$x;y'"""
    assert one_line(" a \n b\x00c ") == "a b c"


@pytest.mark.parametrize("name", samples.named())
def test_nasty_names_add_no_line(name: str) -> None:
    """All that devices and administrators put in as text at once: no text gets more lines, or another first word."""
    plain = samples.named()[name]
    labels = {"product": NASTY}
    nasty = replace(
        plain,
        decision=replace(plain.decision, reason=f"{plain.decision.reason} {NASTY}"),
        arguments=f"folder=1 {NASTY}",
        menu=plain.menu and _nasty(plain.menu),
    )
    facts = replace(samples.FACTS, name=NASTY, serial=NASTY, asset=NASTY, labels=labels)
    for render in (RENDERER.ipxe, RENDERER.pxelinux, RENDERER.grub, RENDERER.settings, RENDERER.raspberrypi):
        before, after = render(plain, samples.FACTS), render(nasty, facts)
        assert _skeleton(before) == _skeleton(after)


def _nasty(menu: Menu) -> Menu:
    words = NASTY.replace("\n", " ").replace("\r", " ").replace("\x1b", "")
    items = tuple(replace(item, title=f"{words} {number}") for number, item in enumerate(menu.items))
    return replace(menu, title=words, items=items)


def _skeleton(text: str | None) -> list[str]:
    return [] if text is None else [line.split()[0] if line.split() else "" for line in text.splitlines()]


def test_bundle_texts_of_an_administrator_are_not_expanded_by_templates() -> None:
    bundle = Bundle(name="x", kind=BundleKind.LINUX, kernel="k", arguments="a={{ 7*7 }}", title="{% if %}")
    text = RENDERER.ipxe(samples.booting(bundle), samples.FACTS)
    assert "a={{ 7*7 }}" in text


def test_menu_items_are_asked_for_by_quoted_names() -> None:
    menu = Menu(name="m", items=(MenuItem(name="A b.c", title="t", bundle="x"),))
    ruling = replace(samples.menus()["menu-undecided"], menu=menu)
    assert "?item=A%20b.c&" in RENDERER.ipxe(ruling, samples.FACTS)
    assert "item/A%20b.c/grub.cfg-01-" in (RENDERER.grub(ruling, samples.FACTS) or "")


def test_default_item_is_the_decision() -> None:
    """Also where an item names the very bundle: work that is due is ordered by the server, not by the item."""
    shown = samples.menus()["menu"]
    menu = Menu(name="m", items=(MenuItem(name="r", title="t", bundle="restore"),
                                 MenuItem(name="other", title="t", bundle="restore", arguments="x")))  # fmt: skip
    text = RENDERER.ipxe(replace(shown, menu=menu), samples.FACTS)
    assert "choose --default i1 --timeout 10000" in text
    assert "?item=~decision&" in text
    assert "?item=other&" in text
    local = replace(shown, bundle=None, without_menu=samples.named()["verdict-local"].decision.verdict)
    assert "choose --default i3" in RENDERER.ipxe(local, samples.FACTS)


def test_menu_of_another_default() -> None:
    menu = Menu(name="m", default="exit")
    ruling = replace(samples.menus()["menu-undecided"], menu=menu)
    assert "choose --default i4" in RENDERER.ipxe(ruling, samples.FACTS)


def test_reason_of_the_default_item_is_what_was_decided() -> None:
    ruling = replace(
        samples.menus()["menu-without-item"], bundle=None,
        decision=Decision(samples.menus()["menu"].decision.verdict, "menu m; by itself loader of the zone"),
    )  # fmt: skip
    assert "item i0 Continue: loader of the zone" in RENDERER.ipxe(ruling, samples.FACTS)
