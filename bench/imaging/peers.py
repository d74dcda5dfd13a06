"""The servers that are compared: how each one is started, where its files are, and its version.

One rule: the peer gets what the load needs and its best settings for static files, and writes no access log; we log as
we do by default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.imaging import serve
from bench.imaging.work import Work
from bench.tftp import peers as tftp
from bench.tftp import unpack

NGINX_PORT = 8080
_NGINX = """
user root;
worker_processes 1;
daemon off;
pid {place}/nginx.pid;
error_log {place}/nginx-error.log;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; multi_accept on; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 10000000;
    open_file_cache max=1000 inactive=600s;
    open_file_cache_valid 600s;
    default_type application/octet-stream;
    client_body_temp_path {place}/nginx-body;
    proxy_temp_path {place}/nginx-proxy;
    fastcgi_temp_path {place}/nginx-fastcgi;
    uwsgi_temp_path {place}/nginx-uwsgi;
    scgi_temp_path {place}/nginx-scgi;
    server {{
        listen {host}:{port} backlog=4096;
        root {files};
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """``own``: where our configuration and state are. ``files``: the files that both of them give out."""

    scratch: Path
    own: Path
    files: Path


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    version: Callable[[], str]
    command: Callable[[Place], list[str]]
    path: Callable[[Work], str]
    port: int


def _nginx(place: Place) -> list[str]:
    program = unpack.unpacked("nginx") / "usr/sbin/nginx"
    conf = place.scratch / "nginx.conf"
    conf.write_text(_NGINX.format(place=place.scratch, host=serve.HOST, port=NGINX_PORT, files=place.files))
    return [str(program), "-p", str(place.scratch), "-e", str(place.scratch / "nginx-error.log"), "-c", str(conf)]


def _own_path(work: Work) -> str:
    return serve.image_path(work.size) if work.kind == "image" else f"/files/{work.file}"


PBSERV = Peer("pbserv", tftp.PBSERV.version, lambda place: serve.command(place.own), _own_path, serve.PORT)
NGINX = Peer("nginx", lambda: unpack.version("nginx"), _nginx, lambda work: f"/{work.file}", NGINX_PORT)
EVERYBODY = (PBSERV, NGINX)
