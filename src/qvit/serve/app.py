"""The web application: one page, what it asks for, and limits on what it takes. Needs starlette."""

import ipaddress
from contextlib import suppress
from functools import partial
from importlib.resources import files
from json import dumps

import anyio
from jinja2 import Environment, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from qvit.errors import DataError
from qvit.serve.desk import Desk

PATIENCE = 60  # seconds that a file may take to arrive
WAITING = 32  # questions at once: each holds a file in memory
DROPPED = 10  # times the bytes that are kept are read of a file that is too large
_PAGE = files("qvit.serve") / "page"
_HEADERS = {
    # The page runs its own script and nothing else, talks to where it came from, and leaves no trace in a cache.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Return whether an address is heard by this machine alone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def application(desk: Desk, host: str = "127.0.0.1") -> Starlette:
    """Return the application that answers on `host`.

    On a loopback address it takes requests that name one: a page from elsewhere whose name was made to lead here does
    not reach the model.
    """
    names = ["127.0.0.1", "localhost", "[::1]", "[", host]  # "[": as ::1 is cut at a colon
    hosts = names if is_loopback(host) else ["*"]
    turn = anyio.CapacityLimiter(1)  # a model is asked one thing at a time: it has its own number of threads
    return Starlette(
        routes=[
            Route("/", partial(_page, desk=desk)),
            Route("/page.css", partial(_file, name="page.css", kind="text/css")),
            Route("/page.js", partial(_file, name="page.js", kind="text/javascript")),
            Route("/about", partial(_about, desk=desk)),
            Route("/answer", partial(_answer, desk=desk, turn=turn), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
    )


async def _page(request: Request, desk: Desk) -> Response:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string((_PAGE / "index.html").read_text(encoding="utf-8"))
    return Response(page.render(about=desk.about()), media_type="text/html", headers=_HEADERS)


async def _file(request: Request, name: str, kind: str) -> Response:
    return Response((_PAGE / name).read_text(encoding="utf-8"), media_type=kind, headers=_HEADERS)


async def _about(request: Request, desk: Desk) -> Response:
    return JSONResponse(desk.about(), headers=_HEADERS)


async def _answer(request: Request, desk: Desk, turn: anyio.CapacityLimiter) -> Response:
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return _refused(403, "Another site's page cannot ask.")
    if turn.statistics().tasks_waiting >= WAITING:
        return _refused(503, "Too many questions at once. Ask again later.")
    try:
        with anyio.fail_after(PATIENCE):
            content = await _received(request, desk.limits.bytes)
    except TimeoutError:
        return _refused(408, f"Expected the file within {PATIENCE} seconds. Send it again.")
    except ClientDisconnect:
        return _refused(400, "The file did not arrive.")
    if content is None:
        return _refused(413, f"Expected a file of at most {desk.limits.megabytes:g} MB, got a larger one.")
    try:
        target = request.query_params.get("class")
        told = await anyio.to_thread.run_sync(desk.answer, content, target, limiter=turn)
    except DataError as error:
        text = str(error)
        return _refused(422, text[:1].upper() + text[1:])
    return Response(dumps(told, allow_nan=False), media_type="application/json", headers=_HEADERS)


async def _received(request: Request, most: int) -> bytes | None:
    """Return the body of a request; None if it is larger than `most` bytes, of which no more are kept.

    Some more is taken and dropped all the same: who still sends does not hear the answer.
    """
    content, length = bytearray(), 0
    async for part in request.stream():
        length += len(part)
        if length <= most:
            content += part
        elif length > DROPPED * most:
            break
    return bytes(content) if length <= most else None


def _refused(status: int, why: str) -> Response:
    # Closed, as who was refused may still send.
    return JSONResponse({"error": why}, status_code=status, headers=_HEADERS | {"connection": "close"})
