"""The answer of a pixiecore API server as a bundle. Pure.

One rule: whatever is in the JSON, what comes out is a bundle that an administrator could have made, or a ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urljoin, urlsplit

from pbserv.policy.model import MAX_LINE, Bundle
from pbserv.registry.records import BundleKind

NAME: Final = "hook"
MOST_INITRDS: Final = 16
_URL_OF = re.compile(r"""\{\{-?\s*URL\s+(?:"([^"\\{}]*)"|`([^`{}]*)`)\s*-?\}\}""")
_TEMPLATE = re.compile(r"\{[{%#]")
_SCHEMES: Final = ("http", "https", "tftp")


def bundle_of(values: Mapping[str, object], base: str) -> Bundle:
    """``values``: the JSON object; ``base``: the URL that it came from, which relative URLs in it are taken against.

    Raises ValueError with the key that is wrong. Keys that pixiecore does not know are of no interest.
    """
    message = _line(values, "message")
    script = values.get("ipxe-script")
    if script is not None and script != "":
        if not isinstance(script, str) or not _plain(script):
            raise ValueError("ipxe-script is not a text")
        return _made(kind=BundleKind.IPXE, script=_as_it_is(script), title=message)
    kernel = values.get("kernel")
    if not isinstance(kernel, str) or not kernel:
        raise ValueError("kernel is missing, or not a URL")
    return _made(
        kind=BundleKind.LINUX,
        kernel=_absolute(kernel, base, "kernel"),
        initrd=tuple(_absolute(each, base, "initrd") for each in _initrds(values)),
        arguments=_arguments(values.get("cmdline"), base),
        title=message,
    )


def _made(**values: object) -> Bundle:
    return Bundle(name=NAME, **values)  # type: ignore[arg-type]  # the two callers give what the fields take


def _as_it_is(script: str) -> str:
    """Scripts of bundles are templates; this one is a script, and is given to the device letter by letter."""
    return _TEMPLATE.sub(lambda found: f"{{{{ '{found[0]}' }}}}", script)


def _plain(text: str) -> bool:
    """Printable but for ends of lines and tabs; not half of a surrogate pair either."""
    return text.replace("\r", "").replace("\n", "").replace("\t", "").isprintable()


def _line(values: Mapping[str, object], key: str) -> str:
    """A text for people: made to fit, not refused."""
    value = values.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a text")
    return "".join(letter if letter.isprintable() else " " for letter in value)[:MAX_LINE].strip()


def _initrds(values: Mapping[str, object]) -> list[str]:
    found = values.get("initrd")
    if found is None:
        return []
    if not isinstance(found, list) or len(found) > MOST_INITRDS or not all(isinstance(each, str) for each in found):
        raise ValueError(f"initrd is not a list of at most {MOST_INITRDS} URLs")
    return found


def _absolute(text: str, base: str, key: str) -> str:
    try:
        url = urljoin(base, text.strip())
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"{key} is not a URL") from None
    if parts.scheme not in _SCHEMES or not parts.netloc or not url.isprintable():
        raise ValueError(f"{key} is not a URL of http, https or tftp")
    return url


def _arguments(cmdline: object, base: str) -> str:
    """Go's template knows one function here, ``URL``, by which pixiecore serves a file itself; we name the file."""
    if cmdline is None:
        return ""
    if isinstance(cmdline, dict):
        return " ".join(_argument(name, value, base) for name, value in sorted(cmdline.items()))
    if not isinstance(cmdline, str):
        raise ValueError("cmdline is neither a text nor an object")
    text = _URL_OF.sub(lambda found: _absolute(found[1] or found[2] or "", base, "cmdline"), cmdline)
    if "{{" in text:
        raise ValueError('cmdline has a template other than {{ URL "..." }}')
    return text.strip()


def _argument(name: str, value: object, base: str) -> str:
    """One of the older form, an object."""
    if value is True or value is None:
        return name
    if isinstance(value, str):
        return f"{name}={value}"
    if isinstance(value, dict) and isinstance(value.get("url"), str):
        return f"{name}={_absolute(value['url'], base, 'cmdline')}"
    raise ValueError(f"cmdline: {name[:40]!r} is neither a text, true, nor an object with a url")
