"""Samples and reference are what the declarations say; editing one key leaves the rest alone."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.conf.grammar import parse
from pbserv.conf.load import load
from pbserv.conf.model import ConfFile, keys_of
from pbserv.conf.reference import render_reference, render_sample, set_key
from pbserv.imaging.config import PbservConf
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.tftp.config import TftpConf
from tests.conf import FILES

ROOT = Path(__file__).parents[2]
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def golden(path: Path, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "declarations changed: run again with UPDATE_GOLDEN=1"


@each_file
def test_the_sample_in_the_repository(file: ConfFile[Any]) -> None:
    golden(ROOT / "conf" / file.name, render_sample(file.model))


def test_there_are_no_other_samples() -> None:
    assert {path.name for path in (ROOT / "conf").glob("*.conf")} == {file.name for file in FILES}


def test_the_reference_in_the_repository() -> None:
    golden(ROOT / "docs" / "conf-reference.md", render_reference(FILES))


def test_the_reference_names_every_key() -> None:
    text = render_reference(FILES)
    for file in FILES:
        assert all(f"| `{bound.name}` |" in text for bound in keys_of(file.model))


@each_file
@pytest.mark.parametrize("active", [False, True])
def test_a_sample_means_the_defaults_commented_out_or_not(tmp_path: Path, file: ConfFile[Any], active: bool) -> None:
    text = render_sample(file.model)
    if active:
        text = re.sub(r"(?m)^#(?=\w)", "", text)
        assert len(parse(text).entries) == len(keys_of(file.model))
    else:
        assert parse(text).entries == ()
    (tmp_path / file.name).write_text(text)
    loaded = load(tmp_path, FILES)
    assert loaded.get(file.model) == file.model()
    assert not loaded.warnings


@each_file
def test_manual_keys_stand_before_extensions(file: ConfFile[Any]) -> None:
    text = render_sample(file.model)
    divide = text.index("# ---- Extensions")
    for bound in keys_of(file.model):
        assert (text.index(f"\n#{bound.name} =") > divide) is bound.key.extension


def test_overrides_stand_active(tmp_path: Path) -> None:
    text = render_sample(
        PbservConf, {"statedirectory": Path("/x/var"), "Services": ("tftp", "imaging"), "HTTPPort": "8080"}
    )
    (tmp_path / "pbserv.conf").write_text(text)
    loaded = load(tmp_path, FILES)
    expected = PbservConf(state_directory=Path("/x/var"), services=("tftp", "imaging"), http_port=8080)
    assert loaded.get(PbservConf) == expected
    assert "\nStateDirectory = /x/var\n" in text
    assert "\n#User = pbserv\n" in text
    assert "\nNBPiPXE =\n" in render_sample(ProxyDhcpConf, {"NBPiPXE": ""})
    assert "\nTFTPAllowWrites = 1\n" in render_sample(TftpConf, {"TFTPAllowWrites": True})


def test_wrong_overrides() -> None:
    with pytest.raises(ValueError, match="TFTPPort: 70000 is out of range"):
        render_sample(TftpConf, {"TFTPPort": 70_000})
    with pytest.raises(ValueError, match="one line"):
        render_sample(PbservConf, {"User": "a\nHTTPPort = 1"})
    with pytest.raises(KeyError):
        render_sample(TftpConf, {"NoSuchKey": "1"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "Services = tftp\n"),
        ("# only this", "# only this\nServices = tftp\n"),
        ("A = 1\nServices = imaging\n# end\n", "A = 1\nServices = tftp\n# end\n"),
        ("services=imaging", "services=tftp"),
        ("  SERVICES  =imaging, policy  \n", "  SERVICES  = tftp\n"),
        ("Services =\n", "Services = tftp\n"),
        ("Services\n", "Services = tftp\n"),
        ("#Services = imaging\nUser = x\n", "#Services = imaging\nServices = tftp\nUser = x\n"),
        (
            "# Services = a sentence\n#Services = imaging\n",
            "# Services = a sentence\n#Services = imaging\nServices = tftp\n",
        ),
        ("; Services = x\nUser = y\n", "; Services = x\nServices = tftp\nUser = y\n"),
        ("\ufeff#Services = i\r\nUser = x\r\n", "\ufeff#Services = i\r\nServices = tftp\r\nUser = x\r\n"),
        ("User = x\r\n#Services=i", "User = x\r\n#Services=i\r\nServices = tftp\r\n"),
    ],
)
def test_set_key(before: str, after: str) -> None:
    assert set_key(before, "Services", "tftp") == after


def test_set_key_on_a_sample_keeps_everything_else() -> None:
    sample = render_sample(PbservConf)
    once = set_key(sample, "Services", "imaging proxydhcp")
    assert once.replace("Services = imaging proxydhcp\n", "", 1) == sample
    twice = set_key(once, "Services", "tftp")
    assert twice == once.replace("Services = imaging proxydhcp\n", "Services = tftp\n")
    assert set_key(twice, "services", "tftp") == twice


@given(st.text(st.sampled_from("ab=# ;\r\n\ufeffServices"), max_size=40))
def test_set_key_on_any_text(text: str) -> None:
    edited = set_key(text, "Services", "tftp")
    values = [entry.value for entry in parse(edited).entries if entry.key.lower() == "services"]
    assert values == ["tftp"]
    assert set_key(edited, "Services", "tftp") == edited
