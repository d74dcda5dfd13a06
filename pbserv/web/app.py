"""Builds the FastAPI application from the routers it is given, with one place for errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from fastapi import APIRouter, FastAPI, Request, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from pbserv import __version__
from pbserv.errors import PbservError
from pbserv.httpapi import ApiError
from pbserv.log import ServiceLog
from pbserv.registry.registry import ConflictError, NotFoundError, RevisionError
from pbserv.web import docs_routes
from pbserv.web.console import console_page
from pbserv.web.description import FOR_LOADERS, describe
from pbserv.web.header_names import HeaderNames
from pbserv.web.limits import BodyLimit
from pbserv.web.requests_counted import Counted, Requests
from pbserv.web.session_path import PathOf, SessionPath
from pbserv.web.tls_only import TlsOnly

Running = Callable[[str], bool]


def create_app(
    routers: Sequence[tuple[str, APIRouter]],
    *,
    running: Running,
    log: ServiceLog,
    path_of: PathOf | None = None,
    tls_required: Callable[[], int | None] = lambda: None,
    requests: Requests | None = None,
) -> FastAPI:
    """``routers`` come with the name of their service: while that one is stopped its paths answer 503.

    An empty name: the routes are the registry's, which is always there. ``path_of``: see :mod:`session_path`;
    ``tls_required``: see :mod:`tls_only`. ``requests`` counts those that were answered.
    """
    app = FastAPI(title="pbserv", version=__version__, docs_url=None, openapi_url="/api/openapi.json",
                  redoc_url=None, swagger_ui_oauth2_redirect_url=None)  # fmt: skip
    describe(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(TlsOnly, required=tls_required)
    if path_of is not None:
        app.add_middleware(SessionPath, path_of=path_of)
    app.add_middleware(HeaderNames)
    if requests is not None:
        app.add_middleware(Counted, requests=requests)
    for service, router in routers:
        app.include_router(router, dependencies=[_only_while_running(service, running)])
    _own_routes(app)
    app.include_router(docs_routes.router(app.openapi))
    _error_handlers(app, log)
    deque(iter_route_contexts(app.routes), maxlen=0)  # else the first request makes them, and TFTP waits 0.2 s for it
    return app


def _only_while_running(service: str, running: Running) -> params.Depends:
    def check() -> None:
        if not running(service):
            raise ApiError(503, f"the {service} service is not running; start it with: pbserv start {service}")

    return params.Depends(check)


def _own_routes(app: FastAPI) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def console() -> HTMLResponse:
        return HTMLResponse(console_page(), headers={"Content-Security-Policy": "default-src 'self' 'unsafe-inline'"})

    @app.get("/healthz", response_class=PlainTextResponse, tags=["health"])
    async def health() -> str:
        return "ok\n"


def _error_handlers(app: FastAPI, log: ServiceLog) -> None:
    def answer(request: Request, status: int, message: str) -> Response:
        message = message.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair may be what is wrong
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        if request.url.path.startswith(FOR_LOADERS):
            return PlainTextResponse(f"error: {message}\n", status, headers)
        return JSONResponse({"error": message}, status, headers)

    async def on_fault(request: Request, fault: Exception) -> Response:
        match fault:
            case ApiError():
                return answer(request, fault.status, str(fault))
            case NotFoundError():
                return answer(request, 404, str(fault))
            case RevisionError():
                return answer(request, 412, str(fault))
            case ConflictError():
                return answer(request, 409, str(fault))
            case RequestValidationError():
                return answer(request, 422, _said(fault) or "the request is not valid")
            case HTTPException():
                return answer(request, fault.status_code, str(fault.detail))
            case PbservError():
                return answer(request, int(getattr(fault, "status", 400)), str(fault))
            case _:
                log.critical("unexpected error", exc_info=fault, path=request.url.path)
                return answer(request, 500, "internal error; the server's log has the details")

    for kind in (PbservError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, on_fault)


def _said(fault: RequestValidationError) -> str:
    """All that is wrong with a request, each with the name of the parameter or field."""
    texts = []
    for error in fault.errors():
        where, text = ".".join(map(str, error["loc"][1:])), error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            text = "there is no such field"
        texts.append(f"{where}: {text}" if where else text)
    return "; ".join(texts)
