import pytest

from pbserv.errors import StartError
from pbserv.imaging.backend import ImagingBackend, load_backend
from pbserv.imaging.stores import Stores

OWN = """
from pbserv.imaging.store import Store

class Own(Store):
    pass

def backend(state_directory, *, allow_overwrite, free_floor_bytes):
    return Own(state_directory / "elsewhere", allow_overwrite=allow_overwrite, free_floor_bytes=free_floor_bytes)

not_callable = 5

def incomplete(state_directory, **settings):
    return object()

def broken(state_directory, **settings):
    raise RuntimeError("no such share")
"""


async def test_the_default_is_the_built_in_store(tmp_path):
    backend: ImagingBackend = load_backend("", tmp_path, allow_overwrite=True, free_floor_bytes=0)
    assert isinstance(backend, Stores)
    assert backend.allow_overwrite
    await backend.start()
    await backend.close()
    assert (tmp_path / "images").is_dir()


@pytest.mark.parametrize("suffix", ["", ":backend", ":Own.mro.__self__"])
async def test_a_python_file(tmp_path, suffix):
    (tmp_path / "own.py").write_text(OWN)
    backend = load_backend(f"{tmp_path}/own.py{suffix}", tmp_path, free_floor_bytes=0)
    assert type(backend).__name__ == "Own"
    await backend.start()
    await backend.close()


def test_a_module(tmp_path, monkeypatch):
    (tmp_path / "some_backend.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert type(load_backend("some_backend:backend", tmp_path)).__name__ == "Own"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("libzenimgweb.so", "native libraries of the original imaging server cannot be loaded; comment LIBRARY_NAME"),
        ("/opt/novell/zenworks/preboot/lib/libzenimgweb.so", "native libraries"),
        ("/usr/lib/libimg.so.1", "native libraries"),
        ("SYS:\\SYSTEM\\IMG.NLM", "native libraries"),
        ("{dir}/missing.py", "there is no such file"),
        ("relative/own.py", "in full, beginning with /"),
        ("{dir}/own.txt", "ends in .py"),
        ("{dir}/own.py:nothing", "there is no object 'nothing'"),
        ("{dir}/own.py:a-b", "is not the name of an object"),
        ("{dir}/own.py:not_callable", "is no callable"),
        ("{dir}/own.py:incomplete", "lacks start, close, list"),
        ("{dir}/own.py:broken", "RuntimeError: no such share"),
        ("{dir}/syntax.py", "cannot be loaded: SyntaxError"),
        ("no.such.module:thing", "cannot be imported: ModuleNotFoundError"),
        ("justaname", "neither the path of a Python file nor package.module:object"),
        ("two words:x", "neither the path"),
    ],
)
def test_refusals_say_what_to_do(tmp_path, name, says):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "own.txt").write_text(OWN)
    (tmp_path / "syntax.py").write_text("def (")
    with pytest.raises(StartError) as caught:
        load_backend(name.replace("{dir}", str(tmp_path)), tmp_path)
    assert says in str(caught.value)
    assert str(caught.value).startswith("LIBRARY_NAME = ")
