"""``GET /ready``: whether calls can be taken now, for whoever watches over the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

READY_PATH = "/ready"


def tells_readiness(why_not: Callable[[], str | None]) -> Middleware:
    """Give what answers ``/ready`` for an internal site, before any credentials are asked for.

    200 when calls can be taken, else 503 with the reason in one line.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != READY_PATH or request.method not in ("GET", "HEAD"):
            return await handler(request)
        reason = why_not()
        headers = {"Cache-Control": "no-store"}
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200, headers=headers)

    return answer
