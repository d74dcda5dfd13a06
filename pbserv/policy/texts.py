"""Do the texts of bundles render? Scripts and answer files are templates; what is wrong with one is said when it is
stored, not when a device boots.

One rule: a text is tried with a device that has every label it names; what real devices lack is not its fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Final

from pbserv.policy.labels import KNOWN
from pbserv.policy.model import Bundle
from pbserv.policy.rendering.installers import LEAVES
from pbserv.policy.rendering.renderer import Renderer, RenderError
from pbserv.policy.rendering.samples import FACTS, booting
from pbserv.registry.records import BundleKind

_LABEL: Final = re.compile(r"""labels\s*(?:\.\s*|\[\s*['"])([a-z][a-z0-9_]{0,31})""")
_RENDERER: Final = Renderer(None)


def text_problems(bundles: Iterable[Bundle]) -> list[str]:
    """A sentence for each bundle with a text that cannot be rendered."""
    return [f"bundle {bundle.name!r}: {fault}" for bundle in bundles if (fault := _fault(bundle))]


@lru_cache(maxsize=8192)
def _fault(bundle: Bundle) -> str:
    labels = {name: "1" for name in (*KNOWN, *_LABEL.findall(f"{bundle.script}\n{bundle.answer}\n{bundle.meta}"))}
    facts = replace(FACTS, labels=labels)
    try:
        if bundle.kind is BundleKind.IPXE:
            _RENDERER.ipxe(booting(bundle), facts)
        elif bundle.kind is BundleKind.INSTALL and bundle.installer is not None:
            for leaf in LEAVES[bundle.installer]:
                _RENDERER.answer(bundle, facts, leaf)
    except RenderError as fault:
        return str(fault)
    return ""
