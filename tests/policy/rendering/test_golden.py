"""What each loader reads for each kind of bundle, as whole texts: a change of a template shows in the diff.

UPDATE_GOLDEN=1 writes them anew.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pbserv.policy.decide import Ruling
from pbserv.policy.rendering import samples
from pbserv.policy.rendering.facts import BootFacts
from pbserv.policy.rendering.installers import LEAVES
from pbserv.policy.rendering.renderer import Renderer

GOLDEN = Path(__file__).parent / "golden"
RENDERER = Renderer(None)
PLAIN = replace(samples.FACTS, token="", session="")


def pixiecore(ruling: Ruling, facts: BootFacts) -> str | None:
    found = RENDERER.pixiecore(ruling, facts)
    return None if found is None else json.dumps(found, indent=1) + "\n"


def cmdline(ruling: Ruling, facts: BootFacts) -> str | None:
    return RENDERER.raspberrypi(ruling, facts, "cmdline.txt")


LOADERS: dict[str, Callable[[Ruling, BootFacts], str | None]] = {
    "boot.ipxe": RENDERER.ipxe, "pxelinux.cfg": RENDERER.pxelinux, "grub.cfg": RENDERER.grub,
    "config.txt": RENDERER.raspberrypi, "cmdline.txt": cmdline, "settings.txt": RENDERER.settings,
    "pixiecore.json": pixiecore,
}  # fmt: skip


def golden(path: Path, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "a template changed: run again with UPDATE_GOLDEN=1"


@pytest.mark.parametrize("name", samples.named())
def test_each_loader(name: str) -> None:
    """With work and a boot's token; what a loader cannot be given has no file."""
    for leaf, render in LOADERS.items():
        text, path = render(samples.named()[name], samples.FACTS), GOLDEN / name / leaf
        if text is None:
            assert not path.exists(), path
        else:
            golden(path, text)


@pytest.mark.parametrize("name", samples.named())
def test_without_work_no_token_is_said(name: str) -> None:
    for leaf, render in LOADERS.items():
        text = render(samples.named()[name], PLAIN) or ""
        assert "/done/" not in text, leaf
        assert "/s/" not in text, leaf
        assert "pb.token" not in text, leaf


@pytest.mark.parametrize("sent", [False, True])
def test_bootstrap(sent: bool) -> None:
    golden(GOLDEN / f"bootstrap{'-sent' if sent else ''}.ipxe", RENDERER.bootstrap("http://192.0.2.1:8080", sent=sent))


@pytest.mark.parametrize("name", samples.named())
def test_grub_understands_its_configuration(name: str) -> None:
    text = RENDERER.grub(samples.named()[name], samples.FACTS)
    if text is not None:
        done = subprocess.run(["grub-script-check"], input=text.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("name", samples.named())
def test_jumps_of_ipxe_scripts_lead_somewhere(name: str) -> None:
    lines = RENDERER.ipxe(samples.named()[name], samples.FACTS).splitlines()
    assert lines[0] == "#!ipxe"
    labels = {line[1:] for line in lines if line.startswith(":")}
    for line in lines:
        words = line.split()
        for at, word in enumerate(words):
            assert word != "goto" or words[at + 1] in {*labels, "${choice}"}, line


def test_answer_files_of_each_installer() -> None:
    for installer, leaves in LEAVES.items():
        bundle = samples.bundles()[installer.value]
        texts = {leaf: RENDERER.answer(bundle, samples.FACTS, leaf) for leaf in leaves}
        assert texts.pop(leaves[0]) == "host lab-01\n"
        meta = f"instance-id: pbserv-{samples.FACTS.hyphens}\nlocal-hostname: lab-01\n"
        assert texts in ({}, {"meta-data": meta, "vendor-data": ""})
        assert RENDERER.answer(bundle, samples.FACTS, "other.cfg") is None
    assert RENDERER.answer(samples.bundles()["linux"], samples.FACTS, "ks.cfg") is None
