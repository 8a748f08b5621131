"""One call that a PBX queues and connects by itself, from its first ring to its end.

One call is still one coroutine: it asks for the code over the PBX's dialplan, lets the dialplan go on, and holds the
session until the call is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from idbellen.calls.active import tell_active
from idbellen.calls.identify import identify, say
from idbellen.calls.pbx.queue import Verdict
from idbellen.calls.run import OnThePhone, run
from idbellen.domain.codes import new_secret

if TYPE_CHECKING:
    from idbellen.calls.identify import Claim, Farewell
    from idbellen.calls.office import Office
    from idbellen.calls.pbx.queue import PbxCalls
    from idbellen.calls.progress import Journey

log = structlog.get_logger()


class PbxPhone(OnThePhone, Protocol):
    """A caller's channel while the PBX's dialplan lends it to us; ``hung_up`` is before it is let go."""

    @property
    def uid(self) -> str:
        """What the PBX calls the channel."""
        ...

    async def tell(self, verdict: Verdict) -> None:
        """Tell the dialplan about the caller."""
        ...

    async def let_go(self) -> None:
        """Let the dialplan go on."""
        ...

    async def hang_up(self) -> None:
        """End the call."""
        ...


async def take_pbx_call(phone: PbxPhone, office: Office, calls: PbxCalls) -> None:
    """Ask one caller for the code, tell the dialplan, and follow the call to its end, whatever happens in it."""

    async def serve(claim: Claim, journey: Journey) -> None:
        with calls.followed(phone.uid, phone.call, claim, journey) as call:
            await phone.tell(call.verdict)
            tell_active("code_accepted", claim.session, office)
            await say(phone, claim.greeting)
            await phone.let_go()
            await calls.until_over(call)

    async def story() -> None:
        farewell = await identify(phone, office, serve, new_secret())
        if farewell:
            await _turn_away(phone, farewell, calls)

    await run(phone, story, office, lambda: phone.tell(Verdict(verified=False)))


async def _turn_away(phone: PbxPhone, farewell: Farewell, calls: PbxCalls) -> None:
    await phone.tell(Verdict(verified=False))
    await say(phone, farewell.prompt)
    if farewell.way_out == "plain":
        calls.expect_stranger(phone.uid)
        await phone.let_go()
    else:
        await phone.hang_up()
