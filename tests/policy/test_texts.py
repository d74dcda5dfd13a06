"""What is wrong with the template of a bundle is known before a device boots."""

from __future__ import annotations

import pytest

from pbserv.policy.model import Bundle, Installer
from pbserv.policy.texts import text_problems
from pbserv.registry.records import BundleKind


def install(answer: str, meta: str = "") -> Bundle:
    installer = Installer.AUTOINSTALL if meta else Installer.PRESEED
    return Bundle(name="i", kind=BundleKind.INSTALL, kernel="k", installer=installer, answer=answer, meta=meta)


def script(text: str) -> Bundle:
    return Bundle(name="s", kind=BundleKind.IPXE, script=text)


@pytest.mark.parametrize(
    "bundle",
    [
        install(
            "host {{ hostname }}\n{% if labels.own_label == 'x' %}{{ labels['other'] }}{% endif %}\n{{ done_url }}"
        ),
        install("a", meta="instance-id: {{ mac }}\n"),
        script("#!ipxe\nchain {{ files }}/x ${net0/mac}\n"),
        Bundle(name="l", kind=BundleKind.LOCAL),
    ],
)
def test_texts_that_render(bundle: Bundle) -> None:
    assert text_problems([bundle]) == []


@pytest.mark.parametrize(
    ("bundle", "words"),
    [
        (install("one\n{% if %}\n"), "line 2"),
        (install("{{ hostnam }}"), "hostnam"),
        (install("a", meta="{{ oops("), "meta-data"),
        (script("#!ipxe\n{{ mac | nothing }}\n"), "nothing"),
        (install("{% for a in range(999999999) %}x{% endfor %}"), "bundle 'i': "),
    ],
)
def test_texts_that_do_not(bundle: Bundle, words: str) -> None:
    [problem] = text_problems([bundle])
    assert problem.startswith(f"bundle {bundle.name!r}: ")
    assert words in problem
