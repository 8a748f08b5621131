"""The citizen's page: the phone number and the code.

The address that the core gets leads one browser to the page, once. From then on a signed cookie tells who it
is, so that neither that address nor a code in it is worth anything to who finds it later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import segno
import structlog
from aiohttp import web
from itsdangerous import BadSignature, URLSafeSerializer

from idbellen.domain.codes import in_groups, new_code
from idbellen.domain.idcontact import AuthStatus, TokenOpener, TokenRefusedError
from idbellen.web.pages import STATIC, Pages, preferred_language
from idbellen.web.security import harden, origin_of, set_cookie

if TYPE_CHECKING:
    from collections.abc import Mapping

    from idbellen.ports import Clock, Session, SessionStore
    from idbellen.web.pages import Language

log = structlog.get_logger()

COOKIE = "idbellen_citizen"
CODE_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class CitizenSite:
    """What the page needs. ``titles``: of the purposes, by language; times in seconds."""

    url: str
    phone_number: str
    language: Language
    code_digits: int
    code_seconds: float
    titles: Mapping[Language, Mapping[str, str]]
    cookie_key: bytes
    sessions: SessionStore
    opener: TokenOpener
    clock: Clock
    demo_phone_url: str | None = None


def citizen_app(site: CitizenSite) -> web.Application:
    """Build the site."""
    app = web.Application(client_max_size=64 * 1024)
    targets = (origin_of(site.demo_phone_url),) if site.demo_phone_url else ()
    harden(app, site.url, form_targets=targets)
    handlers = _Handlers(site)
    # A page works once, and a HEAD request of some preview shall not use it up.
    app.router.add_get("/start/{handle}", handlers.start, allow_head=False)
    app.router.add_get("/", handlers.page)
    app.router.add_post("/new-code", handlers.new_code)
    app.router.add_static("/static/", STATIC)
    return app


class _Handlers:
    def __init__(self, site: CitizenSite) -> None:
        self._site = site
        self._pages = Pages()
        self._cookies = URLSafeSerializer(site.cookie_key, salt="citizen")

    async def start(self, request: web.Request) -> web.StreamResponse:
        session = await self._site.sessions.open_page(request.match_info["handle"])
        if session is None:
            return self._message(request, "used", status=410)
        # ID Contact's second way of delivery: the result comes along with the citizen's browser.
        token = request.query.get("result")
        if token is not None:
            try:
                self._site.opener.receive(token, self._site.clock())
            except TokenRefusedError as fault:
                log.warning("auth result refused", session=session.reference, reason=str(fault))
                return self._message(request, "refused", status=400)
            if not await self._site.sessions.attach_result(session.reference, token):
                log.warning("second auth result refused", session=session.reference)
        return await self._give_code(session.reference)

    async def new_code(self, request: web.Request) -> web.StreamResponse:
        known = self._cookie(request)
        session = await self._site.sessions.by_reference(known["session"]) if known else None
        if session is None:
            return self._message(request, "over", status=410)
        return await self._give_code(session.reference)

    async def page(self, request: web.Request) -> web.StreamResponse:
        known = self._cookie(request)
        session = await self._site.sessions.by_reference(known["session"]) if known else None
        if known is None or session is None:
            return self._message(request, "over", status=410)
        if self._failed(session):
            return self._message(request, "failed")
        left = known["until"] - self._site.clock()
        if left <= 0:
            return self._message(request, "expired")
        language = preferred_language(request, self._site.language)
        # "*" and "#" are refused in tel: links by phones; a comma makes the dialler wait two seconds (RFC 3601).
        dial = f"tel:{self._site.phone_number},{known['code']}"
        return self._pages.render(
            "citizen.html",
            language,
            title=self._site.titles[language].get(session.purpose, session.purpose),
            phone_number=self._site.phone_number,
            spoken_number=_readable(self._site.phone_number),
            code=known["code"],
            groups=in_groups(known["code"]),
            minutes=max(1, int(left // 60)),
            dial=dial,
            qr=segno.make(dial, error="m", micro=False).svg_inline(scale=4, border=2, omitsize=True),
            demo_phone_url=self._site.demo_phone_url,
            url=self._site.url,
        )

    async def _give_code(self, reference: str) -> web.StreamResponse:
        now = self._site.clock()
        until = now + self._site.code_seconds
        for _ in range(CODE_ATTEMPTS):
            code = new_code(self._site.code_digits)
            if await self._site.sessions.issue_code(reference, code, now, valid_until=until):
                break
        else:
            log.error("no free code found: lengthen [sessions] code_digits", session=reference)
            raise web.HTTPServiceUnavailable
        response = web.Response(status=303, headers={"Location": "/"})
        content = {"session": reference, "code": code, "until": until}
        set_cookie(response, COOKIE, self._cookies.dumps(content), url=self._site.url)
        return response

    def _cookie(self, request: web.Request) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = self._cookies.loads(request.cookies.get(COOKIE, ""))
        except BadSignature:
            return None
        return content

    def _failed(self, session: Session) -> bool:
        if session.token is None:
            return False
        try:
            return self._site.opener.reopen(session.token).status is AuthStatus.FAILED
        except TokenRefusedError as fault:
            log.error("stored auth result cannot be opened any more", reason=str(fault))  # noqa: TRY400
            return True

    def _message(self, request: web.Request, kind: str, *, status: int = 200) -> web.Response:
        language = preferred_language(request, self._site.language)
        return self._pages.render("message.html", language, status=status, kind=kind)


def _readable(number: str) -> str:
    """Group a phone number as people in the Netherlands write it: +31 20 123 4567."""
    if number.startswith("+31") and len(number) == 12:  # noqa: PLR2004 - +31 and nine digits
        return f"{number[:3]} {number[3:5]} {number[5:8]} {number[8:]}"
    return number
