"""``GET /ready``: whether calls can be taken now, for whoever watches over the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

READY_PATH = "/ready"


def tells_readiness(readiness: Callable[[], tuple[bool, str]]) -> Middleware:
    """Give what answers ``/ready`` for an internal site, before any credentials are asked for.

    200 when calls can be taken, else 503 with the reasons in one line. ``readiness``: whether they can, and what is
    wrong; of several Asterisks one is enough, and the answer tells of the others too.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != READY_PATH or request.method not in ("GET", "HEAD"):
            return await handler(request)
        ready, fault = readiness()
        text = f"{'ready, but ' if ready and fault else ''}{fault or 'ready'}\n"
        return web.Response(text=text, status=200 if ready else 503, headers={"Cache-Control": "no-store"})

    return answer
