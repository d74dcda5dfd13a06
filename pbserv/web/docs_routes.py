"""``/api/docs``: pages about the API, to read and to try, from this server alone: a LAN may have no way out.

One rule: the page runs the scripts of this server and calls nobody else; its Content-Security-Policy says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final  # Any: JSON

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from pbserv.httpapi import ApiError, faults
from pbserv.web.openapi30 import lowered

_BASE: Final = "/api/docs"
_FILES: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_HEADERS: Final = {
    # Swagger UI sets styles on elements, and draws its icons as data.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_PAGE: Final = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>pbserv API</title>
<link rel="stylesheet" href="{_BASE}/swagger-ui.css">
<link rel="icon" type="image/png" href="{_BASE}/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{_BASE}/swagger-ui-bundle.js"></script>
<script src="{_BASE}/start.js"></script>
</body>
</html>
"""
_START: Final = f"""SwaggerUIBundle({{
  url: "{_BASE}/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "none",
  validatorUrl: null,
  persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis],
}});
"""


def router(description: Callable[[], dict[str, Any]]) -> APIRouter:
    """``description``: the OpenAPI document of the application."""
    routes = APIRouter(prefix=_BASE, include_in_schema=False)

    @routes.get("")
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers=_HEADERS)

    @routes.get("/start.js")
    async def start() -> Response:
        return Response(_START, media_type="text/javascript", headers=_HEADERS)

    @routes.get("/openapi.json")
    async def described() -> Response:
        """What the page reads: it knows OpenAPI 3.0. Programs take /api/openapi.json, which is 3.1."""
        return Response(json.dumps(lowered(description())), media_type="application/json", headers=_HEADERS)

    @routes.get("/{name}", responses=faults(404))
    async def file(name: str) -> FileResponse:
        if name not in _FILES:
            raise ApiError(404, f"no file {name!r} belongs to {_BASE}")
        return FileResponse(str(swagger_ui_path / name), media_type=_FILES[name], headers=_HEADERS)

    return routes
