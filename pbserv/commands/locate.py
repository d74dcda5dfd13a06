"""Where the server that belongs to a configuration directory keeps its pid file and control socket.

One rule: a server that runs is found whatever somebody has written into its files meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from pbserv.conf import grammar
from pbserv.conf.load import ConfigError
from pbserv.daemon.note import noted
from pbserv.daemon.pidfile import PID_FILE_NAME, read_state
from pbserv.imaging.config import FILE, PbservConf
from pbserv.settings import load_settings


def run_directory(conf: Path) -> Path:
    """The directory of pid file and control socket: of the server that runs, else of the one that would be started."""
    try:
        configured = load_settings(conf).run_directory
    except ConfigError:
        configured = _state_directory_line(conf) / "run"
    if not read_state(configured / PID_FILE_NAME).running:
        return noted(conf) or configured
    return configured


def _state_directory_line(conf: Path) -> Path:
    for name in FILE.names:
        try:
            entries = grammar.parse(grammar.decode((conf / name).read_bytes())).entries
        except OSError:
            continue
        for entry in entries:
            if entry.key.lower() == "statedirectory" and entry.value.startswith("/"):
                return Path(entry.value)
    directory: Path = PbservConf().state_directory
    return directory
