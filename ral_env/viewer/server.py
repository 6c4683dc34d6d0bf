"""The page and its questions over HTTP. No address but the server's own is ever asked for anything.

A question is a POST to ``/ask/NAME``, its arguments a JSON object; a picture that is uploaded is
the body itself, and the other arguments are then in the query as JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ral_env.viewer.answers import answer
from ral_env.viewer.sources import Library

PAGE = Path(__file__).parent / "page"
MOST_BYTES = 2**25  # of a question: a photograph
HEADERS = {
    # The browser itself refuses whatever is not from here.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
GONE = 499  # nobody waits for the answer; nobody gets it
FILES = {b"\x89PNG": "image/png", b"GIF8": "image/gif"}


def app(library: Library, hosts: list[str]) -> Starlette:
    """The application.

    Args:
        library: what may be opened.
        hosts: names that the page may be called by (the header ``Host``): another site that lets
            its name point to this machine is refused. ``["*"]`` lets all through.
    """
    busy = asyncio.Lock()  # one answer at a time: each takes all the processor there is

    async def ask(request: Request) -> Response:
        question = request.path_params["question"]
        try:
            arguments = await _arguments(request)
            async with busy:
                if await request.is_disconnected():  # the tab is closed, or has asked anew
                    return Response(status_code=GONE)
                found = await run_in_threadpool(answer, library, question, arguments)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        if isinstance(found, bytes):
            return Response(found, media_type=FILES.get(found[:4], "application/octet-stream"))
        return JSONResponse(found)

    return Starlette(
        routes=[
            Route("/ask/{question}", ask, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
            Middleware(_Headers),
        ],
    )


async def _arguments(request: Request) -> dict[str, Any]:
    """The arguments of a question.

    Raises:
        ValueError: if they are no JSON object, or too large.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MB were sent: send a smaller picture")
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind == "application/octet-stream":
        given = {name: _json(value) for name, value in request.query_params.items()}
        return given | {"picture": bytes(body)}
    if kind != "application/json":  # which another site's page cannot send
        raise ValueError(f"a question of type {kind!r}, expected application/json")
    found = _json(body.decode("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("a question is a JSON object, by the names of its arguments")
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is no JSON: {error}") from error


class _Headers:
    """Adds :data:`HEADERS` to every answer."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)
