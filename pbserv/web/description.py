"""The head of the API's description: what it is, how one gets in, and a sentence for each group of routes.

One rule: what the routes themselves do not say of their tokens and errors is said here, and changes nothing they do.
"""

from __future__ import annotations

from typing import Any, Final  # Any: OpenAPI

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from pbserv.httpapi import BEARER

SUMMARY: Final = "Preboot and imaging server for LANs"
DESCRIPTION: Final = """\
What administrators and their programs may do with this server; `pbserv` on the command line calls the same.

Send `Authorization: Bearer TOKEN`. Tokens have a role: **viewer** reads, **operator** changes devices and orders work,
**admin** changes everything, **site** is for a server of another place that resolves policies here, **images** for
one that refers its callers to images here.
Errors are `{"error": "what is wrong, where, and what to do"}`. Lists come in pages: the header `X-Next-Cursor` has the
value of `after` for the next one. Objects have an `ETag`; `If-Match` and `If-None-Match: *` are honoured.
"""
TAGS: Final = {
    "devices": "What boots here: states, names, groups, labels, history.",
    "identities": "Image-safe data: what belongs to a device and not to its image; pools of names and addresses.",
    "groups": "Devices that are treated alike, and who belongs to them.",
    "folders": "The tree in which devices and groups lie; the zone is its root.",
    "bundles": "What a device can be told to do.",
    "assignments": "Which bundle a device, group, folder or the zone gets, and when.",
    "rules": "Conditions over what is known of a machine; the first that holds wins.",
    "menus": "Preboot menus: when they are shown, and what they offer.",
    "work": "What devices are to do once.",
    "jobs": "Runs of work: how far they are.",
    "policy": "Decisions explained, whole policies applied and exported.",
    "images": "Images and their versions: what is said of them, which are served; the figures of imaging.",
    "uploads": "Images on their way in, part by part.",
    "stores": "Where images are kept, and what runs on them.",
    "journal": "What happened at each boot.",
    "tokens": "Who may call.",
    "boot": "What boot loaders ask for; no token.",
    "imaging client": "What the imaging client asks for, with the token of its work.",
    "health": "For monitoring; no token.",
}
FOR_LOADERS: Final = ("/client/", "/boot", "/files/")
"""Whoever asks there shows errors as they come: one line of text."""
_OF_WORK: Final = "/client/v1/"


def describe(app: FastAPI) -> None:
    """Have ``app`` answer /api/openapi.json with all this; made at the first question."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title, version=app.version, summary=SUMMARY, description=DESCRIPTION, routes=app.routes,
                license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
            )  # fmt: skip
            for path, operations in found["paths"].items():
                for operation in operations.values():
                    _complete(path, operation)
            used = {tag for path in found["paths"].values() for each in path.values() for tag in each.get("tags", ())}
            found["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change it


def _complete(path: str, operation: dict[str, Any]) -> None:
    """``operation``: one method of ``path``."""
    responses = operation["responses"]
    if path.startswith(_OF_WORK):
        operation["security"] = [{BEARER.scheme_name: []}]
        responses["401"] = _line("no token came, or none of work that is not done")
    if path.startswith(FOR_LOADERS) and "422" in responses:
        responses["422"] = _line("a value cannot be used; the line names it")


def _line(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}
