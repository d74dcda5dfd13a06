"""The tokens of boots: each names the device that boots, in the paths of what its loader fetches. Pure but for the key.

One rule: a token proves that the server itself told the loader this path, for this device, not long ago.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

PREFIX: Final = "s/"
"""What the path of a boot begins with: ``s/TOKEN/...``, over TFTP and HTTP alike."""
SPAN_S: Final = 7_200.0
"""A boot may take this long: its token holds in the span of time in which it was made, and in the next one."""
_MARK: Final = 12


class BootTokens:
    """``<12 hex digits of the MAC><12 hex digits of an HMAC>``: nothing of them is stored.

    ``now`` is in seconds since 1970: a restart of this host ends no boot, and no span comes again.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mint(self, mac: str, now: float) -> str:
        """``mac`` as ``aa:bb:cc:dd:ee:ff``. The same token for all of a span, so that a boot's paths are one."""
        return self._at(mac.replace(":", ""), int(now // SPAN_S))

    def mac_of(self, token: str, now: float) -> str | None:
        """Whose boot it is; None for a token that is not ours, or too old."""
        if len(token) != 12 + _MARK or not token.isascii():
            return None
        digits, span = token[:12].lower(), int(now // SPAN_S)
        for made in (span, span - 1):
            if hmac.compare_digest(self._at(digits, made), token.lower()):
                return ":".join(digits[at : at + 2] for at in range(0, 12, 2))
        return None

    def _at(self, digits: str, span: int) -> str:
        mark = hmac.new(self._secret, b"boot:%s:%d" % (digits.encode(), span), hashlib.sha256).hexdigest()
        return digits + mark[:_MARK]


def split_path(name: str) -> tuple[str, str]:
    """``s/TOKEN/path`` -> (TOKEN, path); any other name -> ("", name)."""
    if not name.startswith(PREFIX):
        return "", name
    token, slash, rest = name[len(PREFIX) :].partition("/")
    return (token, rest) if slash else ("", name)
