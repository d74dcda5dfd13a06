"""Our side: what users run. A state directory with one image, a configuration directory for ``pbserv run``.

One rule: everything has its default, save for what the load makes necessary; each of these lines says why.
"""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

from bench.imaging.work import IMAGE

PROGRAM = Path(sys.executable).parent / "pbserv"
HOST, PORT = "127.0.0.1", 8067
BLOCK = 1 << 20


def configure(place: Path, files: Path) -> None:
    """Write the configuration below ``place``; the state is kept from start to start."""
    conf, state = place / "conf", place / "state"
    conf.mkdir(parents=True)
    state.mkdir()
    keys: dict[str, dict[str, object]] = {
        # The checkout may be root's alone. The process gives up its rights all the same.
        "pbserv.conf": {"StateDirectory": state, "User": "root"},
        "tftp.conf": {"TFTPDirectory": files},
    }
    for name, values in keys.items():
        (conf / name).write_text("".join(f"{key} = {value}\n" for key, value in values.items()))


def command(place: Path) -> list[str]:
    return [str(PROGRAM), "--conf", str(place / "conf"), "run"]


def token(place: Path) -> str:
    """An administrator's; the first start makes it."""
    return (place / "state" / "admin.token").read_text().strip()


def upload(place: Path, image: str, path: Path) -> None:
    """Store the file as an image, as an administrator does."""
    size = path.stat().st_size
    wire = http.client.HTTPConnection(HOST, PORT, timeout=300, blocksize=BLOCK)
    headers = {"Authorization": f"Bearer {token(place)}", "Content-Length": str(size)}
    with path.open("rb") as body:
        wire.request("PUT", f"/api/v1/images/{image}", body, headers)
        answer = wire.getresponse()
        said = answer.read()
    wire.close()
    if answer.status != 201:
        raise SystemExit(f"the upload of {image} was refused: {answer.status} {said.decode(errors='replace')[:400]}")


def image_path(size: int) -> str:
    """The URL's path of the bytes of an image of :func:`upload`."""
    return f"/api/v1/images/{image_name(size)}/items/file"


def image_name(size: int) -> str:
    return f"{IMAGE}-{size}"
