"""Builds what stands beside a PBX with queues of its own: FastAGI, AMI, and the calls and members that they are for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from idbellen.asterisk.agi import AgiServer
from idbellen.asterisk.ami import Ami
from idbellen.calls.pbx.call import take_pbx_call
from idbellen.calls.pbx.members import MemberRules, PbxMembers
from idbellen.calls.pbx.queue import PbxCalls, PbxRules
from idbellen.service.config import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AsyncExitStack

    from idbellen.calls.office import Office
    from idbellen.domain.wiring import PbxEvent
    from idbellen.service.config import Settings

Part = tuple[str, "Callable[[], Coroutine[None, None, None]]"]


def ami_client(settings: Settings) -> Ami | None:
    """Give the client of the PBX's AMI, if there is to be one.

    Raises:
        ConfigError: the password cannot be read.

    """
    own = settings.ami
    if own is None:
        return None
    return Ami(own.host, own.port, own.user, read_secret(own.password_file), settings.pbx.queues)


async def open_pbx(stack: AsyncExitStack, settings: Settings, office: Office, ami: Ami | None, room: int) -> list[Part]:
    """Listen for the dialplan, and give the parts that are to run, by name; none without the tables for it.

    ``room``: for so many connections of the dialplan.

    Raises:
        OSError: the address for FastAGI cannot be listened on.

    """
    if settings.agi is None and settings.ami is None:
        return []
    calls = PbxCalls(office, PbxRules(settings.pbx.queues, settings.pbx.lost_seconds))
    parts: list[Part] = []
    if ami:
        rules = MemberRules(settings.pbx.queues, settings.pbx.member_interface, settings.pbx.state_interface)
        members = PbxMembers(office.desk.staff, ami, rules)

        async def next_event() -> PbxEvent:
            event = await ami.next_event()
            members.take(event)
            return event

        parts = [("AMI", ami.run), ("PBX's calls", partial(calls.run, next_event)), ("PBX's members", members.run)]
    if settings.agi:
        host, _, port = settings.agi.listen.rpartition(":")
        server = AgiServer(partial(take_pbx_call, office=office, calls=calls), room)
        await stack.enter_async_context(server.listening(host, int(port)))
    return parts
