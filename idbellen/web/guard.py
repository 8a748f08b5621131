"""What guards the addresses for machines: only who shows credentials is served, and every fault is told as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from idbellen.ports import StoreError
from idbellen.telemetry import Repeated
from idbellen.web.forms import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler

    from idbellen.web.credentials import Credentials

log = structlog.get_logger()

NO_CREDENTIALS = "wrong or no credentials"
NOT_FOUND = "there is nothing at this address: compare it with the one in the other side's configuration"
# Of a path that is not found.
MOST_PARTS = 8
_ABOUT = "about"
_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")


def named(fault: web.HTTPException) -> dict[str, str]:
    """Give a fault by its name, as ID Contact's reference implementation does, with the detail if there is one.

    Python has other phrases for some of them since 3.13.
    """
    detail = _detail(fault) if isinstance(fault, web.HTTPBadRequest) else ""
    name = type(fault).__name__ if type(fault) is not UnreadableError else "HTTPBadRequest"
    return {"error": name.removeprefix("HTTP")} | ({"detail": detail} if detail else {})


def told(fault: web.HTTPException) -> dict[str, str]:
    """Give a fault as a sentence."""
    return {"error": fault.text or fault.reason}


def is_about(request: web.Request, **values: str) -> None:
    """Note whom or what a request is about, for the log if it is refused: no secrets, nothing of a citizen."""
    request[_ABOUT] = _about(request) | values


def _about(request: web.Request) -> dict[str, str]:
    about: dict[str, str] = request.get(_ABOUT, {})
    return about


def _shape(request: web.Request) -> str:
    """Give the path of a request without a route, with the parts that we know: others may be handles, or anything."""
    ours = {part for resource in request.app.router.resources() for part in resource.canonical.split("/")}
    parts = request.path.split("/", MOST_PARTS)
    return "/".join(part if part in ours else "*" for part in parts)


@dataclass(frozen=True, slots=True)
class Guard:
    """Sees each request before anything else does: ``guarded`` says of which credentials are asked.

    ``content`` gives what is answered to a fault; ``challenge``: what is accepted (RFC 9110, 11.6.1).
    """

    credentials: Credentials
    guarded: Callable[[web.Request], bool] = lambda _: True
    content: Callable[[web.HTTPException], dict[str, str]] = named
    challenge: str = 'Basic realm="idbellen", Bearer'
    # What nobody has to show anything for can come ever so often.
    strangers: Repeated = field(default_factory=lambda: Repeated("request refused", reason=NO_CREDENTIALS), init=False)
    unreadable: Repeated = field(default_factory=lambda: Repeated("request refused"), init=False)
    astray: Repeated = field(default_factory=lambda: Repeated("request refused"), init=False)

    def protect(self, app: web.Application) -> None:
        """Guard an application."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                if self.guarded(request) and not self.credentials.fit(request.headers.get("Authorization", "")):
                    raise web.HTTPUnauthorized(  # noqa: TRY301
                        text=NO_CREDENTIALS, headers={"WWW-Authenticate": self.challenge}
                    )
                response = await handler(request)
            except Exception as fault:  # noqa: BLE001 - whatever it is, the answer is JSON
                response = self._answer(request, fault)
            response.headers["Cache-Control"] = "no-store"
            return response

        async def close(_: web.Application) -> None:
            self.strangers.close()
            self.unreadable.close()
            self.astray.close()

        app.middlewares.append(check)
        app.on_cleanup.append(close)

    def _answer(self, request: web.Request, fault: Exception) -> web.Response:
        # The path can hold a handle, so the log names the route.
        resource = request.match_info.route.resource
        about = {"route": resource.canonical if resource else _shape(request)} | _about(request)
        match fault:
            case web.HTTPException():
                self._log(fault, request, about)
                refusal = fault
            case StoreError():
                log.error("request not served: the store cannot be used", **about, reason=str(fault))
                refusal = web.HTTPServiceUnavailable(text="the store cannot be used at this moment")
            case _:
                log.error("request failed", **about, exc_info=fault)
                refusal = web.HTTPInternalServerError(text="something went wrong; the log says what")
        headers = {name: refusal.headers[name] for name in _HEADERS if name in refusal.headers}
        return web.json_response(self.content(refusal), status=refusal.status, headers=headers)

    def _log(self, refusal: web.HTTPException, request: web.Request, about: dict[str, str]) -> None:
        match refusal:
            case web.HTTPUnauthorized():
                self.strangers(**about)
            case UnreadableError():
                self.unreadable(**about, reason=refusal.text)
            case web.HTTPRequestEntityTooLarge():
                log.warning("request refused", **about, reason=f"larger than {request.client_max_size} bytes")
            case web.HTTPBadRequest() if _detail(refusal):
                log.warning("request refused", **about, reason=refusal.text)
            case web.HTTPMethodNotAllowed():
                allowed = ", ".join(sorted(refusal.allowed_methods))
                self.astray(**about, reason=f"expected {allowed}")
            case web.HTTPNotFound() if request.match_info.http_exception is refusal:
                self.astray(**about, reason=NOT_FOUND)


def _detail(fault: web.HTTPException) -> str:
    """Give what was said of a fault, beside its name."""
    text = fault.text or ""
    return "" if text == f"{fault.status}: {fault.reason}" else text
