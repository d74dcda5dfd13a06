"""The JSON of a pixiecore API server: what becomes of it, and that nothing else can."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.model import Bundle
from pbserv.policy.oracles.pixiecore import bundle_of
from pbserv.policy.rendering import samples
from pbserv.policy.rendering.renderer import Renderer
from pbserv.registry.records import BundleKind

BASE = "http://10.0.0.7:8080/v1/boot/52:54:00:12:34:56?arch=7"


def read(**values: object) -> Bundle:
    return bundle_of({key.replace("ipxe_", "ipxe-"): value for key, value in values.items()}, BASE)


def test_a_kernel_with_all_that_goes_with_it() -> None:
    found = read(
        kernel="https://files.example/vmlinuz", initrd=["/initrd.0", "initrd.1"], message="Hello\nyou",
        cmdline='console=ttyS0 url={{ URL "/config.yaml" }} other={{URL `http://x.example/y`}}', unknown=[1],
    )  # fmt: skip
    assert found == Bundle(
        name="hook",
        kind=BundleKind.LINUX,
        title="Hello you",
        kernel="https://files.example/vmlinuz",
        initrd=("http://10.0.0.7:8080/initrd.0", "http://10.0.0.7:8080/v1/boot/initrd.1"),
        arguments="console=ttyS0 url=http://10.0.0.7:8080/config.yaml other=http://x.example/y",
    )


def test_a_kernel_alone() -> None:
    found = read(kernel="/kernel", initrd=None, cmdline=None, message=None)
    assert (found.kernel, found.initrd, found.arguments, found.title) == ("http://10.0.0.7:8080/kernel", (), "", "")


def test_a_script() -> None:
    found = read(ipxe_script="#!ipxe\n\tshell\r\n", kernel=7, message="m")
    assert (found.kind, found.script, found.title) == (BundleKind.IPXE, "#!ipxe\n\tshell\r\n", "m")


def test_the_older_form_of_a_command_line() -> None:
    found = read(kernel="/k", cmdline={"b": "2", "a": True, "c": {"url": "/c"}, "d": None})
    assert found.arguments == "a b=2 c=http://10.0.0.7:8080/c d"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "kernel"),
        ({"kernel": 7}, "kernel"),
        ({"kernel": "file:///vmlinuz"}, "kernel"),
        ({"kernel": "javascript:x"}, "kernel"),
        ({"kernel": "http://[::1"}, "kernel"),
        ({"kernel": "tftp:vmlinuz"}, "kernel"),
        ({"kernel": "/vm;linuz"}, "file"),
        ({"kernel": "/vmlinuz${net0}"}, "file"),
        ({"kernel": "/k", "initrd": "x"}, "initrd"),
        ({"kernel": "/k", "initrd": ["x", 1]}, "initrd"),
        ({"kernel": "/k", "initrd": ["x"] * 17}, "initrd"),
        ({"kernel": "/k", "cmdline": 7}, "cmdline"),
        ({"kernel": "/k", "cmdline": "a\nimgexec evil"}, "arguments"),
        ({"kernel": "/k", "cmdline": "x" * 1025}, "arguments"),
        ({"kernel": "/k", "cmdline": "{{ .Env }}"}, "template"),
        ({"kernel": "/k", "cmdline": '{{ URL "file:///etc/passwd" }}'}, "cmdline"),
        ({"kernel": "/k", "cmdline": {"a": 1}}, "cmdline"),
        ({"kernel": "/k", "message": 7}, "message"),
        ({"ipxe-script": 7}, "ipxe-script"),
        ({"ipxe-script": "\ud800"}, "ipxe-script"),
        ({"ipxe-script": "x\0"}, "ipxe-script"),
        ({"ipxe-script": "x" * 65_537}, "characters"),
    ],
)
def test_what_cannot_be_used_is_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        bundle_of(values, BASE)


TEXTS = st.one_of(
    st.text(max_size=40),
    st.builds(
        "".join, st.lists(st.sampled_from(["http://", "h", "/", "{{ URL ", '"', "}}", "`", ":", "[", " ", "\n"]))
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["kernel", "initrd", "cmdline", "message", "ipxe-script", "url"])


@given(st.dictionaries(KEYS, JSON | st.dictionaries(TEXTS, JSON, max_size=2) | st.lists(TEXTS, max_size=3)))
def test_any_json_is_a_bundle_or_refused(values: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        found = bundle_of(values, BASE)
        assert found.kind in (BundleKind.LINUX, BundleKind.IPXE)
        assert "\n" not in found.arguments + found.kernel + "".join(found.initrd) + found.title


@pytest.mark.parametrize(
    "script", ["#!ipxe\necho {{ token }}\n", "a {% if x %} b", "{# gone #}{{{{%", "${net0/mac} {a}"]
)
def test_a_script_is_no_template_of_ours(script: str) -> None:
    """Nor does its author get at the token of our work."""
    made = bundle_of({"ipxe-script": script}, BASE)
    text = Renderer(None).ipxe(samples.booting(made), samples.FACTS)
    assert text.endswith(f"\n{script}\n")
