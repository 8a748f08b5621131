"""What every page answers with, and who may send us a form or open a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from idbellen.ports import StoreError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

log = structlog.get_logger()

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HSTS_SECONDS = 365 * 24 * 3600
RETRY_SECONDS = 10
_STARTED = web.RequestKey("started", bool)
# In both languages, since it takes the store to know which one is wanted.
_UNAVAILABLE = """<!DOCTYPE html>
<html lang="nl"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Even niet</title>
<main><h1>Dit lukt nu niet</h1><p>Probeer het over een minuut opnieuw.</p>
<div lang="en"><h2>This does not work now</h2><p>Try again in a minute.</p></div></main></html>
"""


def origin_of(url: str) -> str:
    """Give the origin of a URL, as browsers write it in the Origin header (RFC 6454)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def harden(app: web.Application, url: str, *, form_targets: tuple[str, ...] = ()) -> None:
    """Add the security headers to every answer of a site, and refuse what other sites' pages send.

    ``url`` is the site's public address; ``form_targets`` are other origins to which its forms may lead.
    """
    secure = url.startswith("https://")
    targets = " ".join(("'self'", *form_targets))
    headers = {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
            f" form-action {targets}; frame-ancestors 'none'; base-uri 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # With "no-referrer" browsers send "Origin: null" along with our own forms.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Server": "idbellen",
    }
    if secure:
        headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        request[_STARTED] = True
        response.headers.update(headers)
        static = request.path.startswith("/static/")
        response.headers["Cache-Control"] = "no-cache" if static else "no-store"

    app.on_response_prepare.append(add_headers)
    app.middlewares.append(_without_store)
    app.middlewares.append(_same_origin(origin_of(url)))


@web.middleware
async def _without_store(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except StoreError as fault:
        # The path can hold a handle.
        log.error("page not given: the store cannot be used", reason=str(fault))  # noqa: TRY400
        if _STARTED in request:
            # The page that listens comes back by itself.
            raise ConnectionResetError from None
        return web.Response(
            status=503, text=_UNAVAILABLE, content_type="text/html", headers={"Retry-After": f"{RETRY_SECONDS}"}
        )


def _same_origin(origin: str) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Browsers send Origin with every form and every websocket; a page of another site cannot change it.
        opens_socket = request.headers.get("Upgrade", "").lower() == "websocket"
        changes = request.method not in SAFE_METHODS or opens_socket
        if changes and request.headers.get("Origin", "").lower() != origin:
            raise web.HTTPForbidden(text="This request did not come from this site.")
        return await handler(request)

    return check


def set_cookie(response: web.StreamResponse, name: str, value: str, *, url: str, max_age: int | None = None) -> None:
    """Set a cookie that scripts cannot read, for ``max_age`` seconds, or for as long as the browser is open."""
    secure = url.startswith("https://")
    response.set_cookie(name, value, max_age=max_age, secure=secure, httponly=True, samesite="Lax", path="/")
