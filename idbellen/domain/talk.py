"""What an agent can do in a call, as a table: hold, consult, transfer, conference, and back."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Literal

from idbellen.domain.refusals import Refusal

TargetKind = Literal["agent", "queue", "number"]


class Mode(enum.Enum):
    """How the parties of a call are together. The value is what the dashboard's websocket says."""

    TALKING = "talking"  # caller and agent
    HELD = "held"  # the caller hears music
    CONSULTING = "consulting"  # the caller hears music while somebody else is rung
    CONSULTED = "consulted"  # the caller hears music while the agent talks with somebody else
    CONFERENCE = "conference"  # all three
    TRANSFERRING = "transferring"  # the agent has left; the caller hears music while somebody else is rung


class Verb(enum.Enum):
    """What an agent can ask for. The value is what the dashboard's websocket says."""

    MUTE = "mute"
    UNMUTE = "unmute"
    HOLD = "hold"
    RESUME = "resume"  # the held caller; or drop who is consulted and take the caller back
    CONSULT = "consult"
    BLIND = "blind"  # transfer without asking first
    TRANSFER = "transfer"  # to the one who is consulted
    CONFERENCE = "conference"
    SHARE = "share"  # let the one who is consulted see the citizen's data
    HANG_UP = "hang_up"


_M, _V = Mode, Verb
_ALWAYS = frozenset({_V.MUTE, _V.UNMUTE, _V.HANG_UP})

# What the agent who has the caller can ask for; how each of them ends is in idbellen.calls.conversation.
ALLOWED: dict[Mode, frozenset[Verb]] = {
    _M.TALKING: _ALWAYS | {_V.HOLD, _V.CONSULT, _V.BLIND},
    _M.HELD: _ALWAYS | {_V.RESUME, _V.CONSULT, _V.BLIND},
    _M.CONSULTING: _ALWAYS | {_V.RESUME},
    _M.CONSULTED: _ALWAYS | {_V.RESUME, _V.TRANSFER, _V.CONFERENCE, _V.SHARE},
    _M.CONFERENCE: _ALWAYS | {_V.RESUME, _V.TRANSFER, _V.SHARE},
    _M.TRANSFERRING: frozenset(),
}
# The one who is consulted can leave, and close their microphone.
ALLOWED_CONSULTED = _ALWAYS


def allowed(mode: Mode, *, consulted: bool, phone_holds: bool) -> frozenset[Verb]:
    """Give what an agent can ask for; ``consulted``: one who does not have the caller.

    ``phone_holds``: the agent's phone holds, by its own key, which nothing but the phone can end. As long as it does,
    nobody is connected with it.
    """
    if consulted:
        return ALLOWED_CONSULTED
    return ALLOWED[mode] - {Verb.RESUME} if phone_holds and mode is Mode.HELD else ALLOWED[mode]


NUMBER = re.compile(r"\+?[0-9]{2,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to consult or to transfer to: an agent or a queue by name, or a phone number (E.164, or national)."""

    kind: TargetKind
    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """What an agent asks for in the call; ``target`` goes with consult and blind."""

    verb: Verb
    target: Target | None = None


def refusal(mode: Mode, command: Command, *, consulted: bool, phone_holds: bool = False) -> Refusal | None:
    """Say why a command cannot be carried out now; None if it can.

    ``consulted`` and ``phone_holds``: as for :func:`allowed`. LATER: not in this mode; TARGET: it needs another target,
    or none.
    """
    if command.verb not in allowed(mode, consulted=consulted, phone_holds=phone_holds):
        return Refusal.LATER
    needs = command.verb in (Verb.CONSULT, Verb.BLIND)
    if needs != (command.target is not None):
        return Refusal.TARGET
    if command.target and command.target.kind == "number" and not NUMBER.fullmatch(command.target.name):
        return Refusal.TARGET
    return None
