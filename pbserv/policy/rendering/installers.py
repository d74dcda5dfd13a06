"""How each installer is told where its answer file is. Pure.

One rule: an installation asks nobody anything; what the bundle's own arguments say comes after and wins.
"""

from __future__ import annotations

from typing import Final

from pbserv.policy.model import Installer

LEAVES: Final[dict[Installer, tuple[str, ...]]] = {
    Installer.KICKSTART: ("ks.cfg",),
    Installer.AUTOYAST: ("autoinst.xml",),
    Installer.PRESEED: ("preseed.cfg",),
    Installer.AUTOINSTALL: ("user-data", "meta-data", "vendor-data"),
}
"""The files that an installer asks for; the first one is the bundle's answer."""


def installer_arguments(installer: Installer, base: str) -> str:
    """Kernel arguments; ``base`` is the URL of the directory of the answer files, without a slash at its end."""
    leaf = f"{base}/{LEAVES[installer][0]}"
    match installer:
        case Installer.KICKSTART:
            return f"inst.ks={leaf}"
        case Installer.AUTOYAST:
            return f"autoyast={leaf}"
        case Installer.PRESEED:
            return f"auto=true priority=critical url={leaf}"
        case Installer.AUTOINSTALL:
            return f"ip=dhcp autoinstall ds=nocloud;s={base}/"
