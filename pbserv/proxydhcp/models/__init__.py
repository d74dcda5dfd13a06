"""Executable models of boot clients: what each sends, which offer it takes, and what it asks next. Pure.

They predict (``pbserv probe``), and they test: every strategy against every client in every environment. Each rule
has its source where it is obeyed. ``run`` lets a model boot on a network, which is a function; ``Model.choose`` alone
judges offers that were heard on a real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pbserv.proxydhcp.models.bios import Bios
from pbserv.proxydhcp.models.boards import RaspberryPi, UBoot
from pbserv.proxydhcp.models.conversation import (
    NOBODY,
    Ask,
    Boot,
    Cached,
    Choice,
    Fails,
    Heard,
    Identity,
    LocalDisk,
    Model,
    Network,
    Operator,
    Outcome,
    Sent,
    answers,
    run,
)
from pbserv.proxydhcp.models.edk2 import Edk2
from pbserv.proxydhcp.models.http import Http
from pbserv.proxydhcp.models.ipxe import Ipxe
from pbserv.proxydhcp.models.second_stage import Grub, Shim

MODELS: Final[Mapping[str, Model]] = MappingProxyType(
    {
        model.name: model
        for model in (Edk2(), Ipxe(), Bios(), Http(), UBoot(), RaspberryPi(), Shim(), Grub())  # type: Model
    }
)

__all__ = (
    "MODELS", "NOBODY", "Ask", "Bios", "Boot", "Cached", "Choice", "Edk2", "Fails", "Grub", "Heard", "Http",
    "Identity", "Ipxe", "LocalDisk", "Model", "Network", "Operator", "Outcome", "RaspberryPi", "Sent", "Shim",
    "UBoot", "answers", "run",
)  # fmt: skip
