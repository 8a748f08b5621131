"""The auth results of an authentication plugin: how they are made and delivered, and what became of the last ones.

What is remembered is for whoever gives the demonstration, and includes the names of the made-up citizens.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from idbellen.demo.remember import Remembered
from idbellen.demo.tokens import Dialect, auth_result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

log = structlog.get_logger()

DELIVERY_SECONDS = 5.0
MOST_RESULTS = 50
MOST_FEEDBACK = 20
FEEDBACK_TYPES = ("user_active", "logout")


@dataclass(slots=True, eq=False)
class Result:
    """One auth result, by the session that its login began.

    ``name`` of the citizen, empty if nobody was chosen; ``shared``: the attributes, None when the citizen refused;
    ``attr_url``: where it is delivered, None when the browser takes it along. ``reason``: why that went wrong.
    ``feedback``: what was told about the session, and when. Times are epoch seconds.
    """

    session: str = field(repr=False)
    name: str = field(repr=False)
    shared: Mapping[str, str] | None = field(repr=False)
    attr_url: str | None = field(repr=False)
    state: Literal["waits", "sending", "delivered", "browser", "undelivered"] = "waits"
    reason: str = ""
    made_at: float = field(default_factory=time.time)
    delivered_at: float = 0.0
    feedback: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=MOST_FEEDBACK))


class UndeliveredError(Exception):
    """An auth result did not arrive; the message gives the reason."""


class Results:
    """Makes the results of one plugin, delivers them, and remembers the last ones."""

    def __init__(
        self, dialect: Dialect, *, issuer: str, signing_key: str, encryption_key: str, sessions_url: str
    ) -> None:
        """Take what the plugin calls itself, the keys as PEM, and the address below which each session has its own.

        Raises:
            ValueError: a key is not written as PEM.
            JoseError: a key is not of the kind that the dialect uses.

        """
        self._dialect = dialect
        self._issuer = issuer
        self._signing_key = dialect.key_type.import_key(signing_key)
        self._encryption_key = dialect.key_type.import_key(encryption_key)
        self._sessions_url = sessions_url
        self._results = Remembered[Result](MOST_RESULTS)
        self._http: aiohttp.ClientSession

    async def client(self, _app: web.Application) -> AsyncIterator[None]:
        """Have connections for as long as the application runs."""
        timeout = aiohttp.ClientTimeout(total=DELIVERY_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._http:
            yield

    def add(self, result: Result) -> None:
        """Remember a result, in place of an earlier one of the same session."""
        self._results.put(result.session, result)

    def newest_first(self) -> list[Result]:
        """Give the results that are remembered."""
        return self._results.newest_first()

    def of_session(self, session: str) -> Result | None:
        """Give the result of a session, if it is remembered."""
        return self._results.get(session)

    def token(self, result: Result) -> str:
        """Write a result as a token, which is valid from now on for five minutes."""
        failed = result.shared is None
        return auth_result(
            result.shared,
            status="failed" if failed else self._dialect.success,
            subject=self._dialect.subject,
            signing_key=self._signing_key,
            encryption_key=self._encryption_key,
            now=time.time(),
            signature=self._dialect.signature,
            key_encryption=self._dialect.key_encryption,
            session_url=None if failed else f"{self._sessions_url}/{result.session}",
            issuer=self._issuer,
        )

    async def deliver(self, result: Result) -> None:
        """Send a result that waits to its ``attr_url``; one that does not wait is left alone.

        Raises:
            UndeliveredError: it did not arrive, and waits again.

        """
        if result.attr_url is None or result.state != "waits":
            return
        # First of all: what is asked twice at once is delivered once.
        result.state = "sending"
        try:
            await self._post(result.attr_url, self.token(result))
        except UndeliveredError as fault:
            result.state, result.reason = "waits", str(fault)
            log.warning("demo.auth.undelivered", reason=result.reason)
            raise
        result.state, result.reason, result.delivered_at = "delivered", "", time.time()

    async def _post(self, attr_url: str, token: str) -> None:
        try:
            async with self._http.post(
                URL(attr_url, encoded=True),
                data=token,
                headers={"Content-Type": "application/jwt"},
                allow_redirects=False,
            ) as response:
                if not web.HTTPOk.status_code <= response.status < web.HTTPMultipleChoices.status_code:
                    raise UndeliveredError(f"status {response.status}")
        except TimeoutError:
            raise UndeliveredError(f"no answer within {DELIVERY_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as fault:
            raise UndeliveredError(type(fault).__name__) from None
