"""From the configuration to the value that decides about packets, with the strategy table read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from pbserv.errors import StartError
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.loaders import Settings, loaders_of
from pbserv.proxydhcp.strategy import DEFAULT_TIMEOUT_S, Menu, menu_entry
from pbserv.proxydhcp.table import Table, TableError, parse

TABLE_NAME: Final = "strategies.toml"
_LARGEST_TABLE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class ProxyDhcpSettings:
    """What the service takes. ``directory`` is that of the configuration; ``http_port`` gives out boot files."""

    conf: ProxyDhcpConf
    http_port: int = 0
    directory: Path | None = None


def settings_of(given: ProxyDhcpSettings) -> Settings:
    """Raises StartError when the strategy table cannot be used."""
    conf = given.conf
    return Settings(
        loaders=loaders_of(boot_files(conf)),
        table=read_table(table_path(conf, given.directory)),
        ipxe=conf.nbp_ipxe,
        menu=menu_of(conf),
        http_port=given.http_port,
        local_interface=conf.local_interface,
        advertised=dict(_pair(item) for item in conf.advertised_addresses),
        escalation=conf.escalation,
        loop_limit=conf.loop_limit,
        minimum_secs=conf.minimum_secs,
        reply_delay_s=conf.reply_delay_ms / 1000,
        per_device=conf.requests_per_device,
        per_interface=conf.requests_per_interface,
    )


def menu_of(conf: ProxyDhcpConf) -> Menu | None:
    """The F8 menu, where one is configured."""
    if conf.menu_timeout is None and not conf.menu_entries:
        return None
    timeout = DEFAULT_TIMEOUT_S if conf.menu_timeout is None else conf.menu_timeout
    return Menu(tuple(menu_entry(item) for item in conf.menu_entries), timeout)


def table_path(conf: ProxyDhcpConf, directory: Path | None) -> Path | None:
    """The administrator's table; None when there is none."""
    if conf.strategy_table is not None:
        return conf.strategy_table
    beside = None if directory is None else directory / TABLE_NAME
    return beside if beside is not None and beside.is_file() else None


def read_table(path: Path | None) -> Table:
    """The package's table behind the administrator's; raises StartError."""
    own = resources.files("pbserv.proxydhcp").joinpath(TABLE_NAME).read_text(encoding="utf-8")
    texts = [(f"pbserv's {TABLE_NAME}", own)]
    if path is not None:
        texts.insert(0, (str(path), _text(path)))
    try:
        return parse(texts)
    except TableError as fault:
        raise StartError(f"StrategyTable: {fault}") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_TABLE + 1)
        if len(data) > _LARGEST_TABLE:
            raise StartError(f"StrategyTable {path}: larger than {_LARGEST_TABLE} bytes")
        return data.decode("utf-8")
    except OSError as fault:
        raise StartError(f"StrategyTable {path}: {fault.strerror}") from None
    except UnicodeDecodeError as fault:
        raise StartError(f"StrategyTable {path}: not UTF-8 text ({fault.reason} at byte {fault.start})") from None


def _pair(item: str) -> tuple[str, str]:
    name, _, address = item.partition("=")
    return name, address


def boot_files(conf: ProxyDhcpConf) -> dict[str, str]:
    """The boot file of each architecture by its key; empty: not served."""
    return {
        "NBPx86": conf.nbp_x86, "NBPx64": conf.nbp_x64, "NBPIA32": conf.nbp_ia32, "NBPARM32": conf.nbp_arm32,
        "NBPARM64": conf.nbp_arm64, "NBPRISCV32": conf.nbp_riscv32, "NBPRISCV64": conf.nbp_riscv64,
        "NBPRISCV128": conf.nbp_riscv128, "NBPLoongArch32": conf.nbp_loongarch32,
        "NBPLoongArch64": conf.nbp_loongarch64, "NBPItanium": conf.nbp_itanium,
        "NBPHTTPIA32": conf.nbp_http_ia32, "NBPHTTPx64": conf.nbp_http_x64, "NBPHTTPARM32": conf.nbp_http_arm32,
        "NBPHTTPARM64": conf.nbp_http_arm64, "NBPHTTPx86": conf.nbp_http_x86,
        "NBPHTTPRISCV32": conf.nbp_http_riscv32, "NBPHTTPRISCV64": conf.nbp_http_riscv64,
        "NBPHTTPRISCV128": conf.nbp_http_riscv128, "NBPHTTPLoongArch32": conf.nbp_http_loongarch32,
        "NBPHTTPLoongArch64": conf.nbp_http_loongarch64,
    }  # fmt: skip
