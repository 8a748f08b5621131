"""The sentences that a caller or an agent can hear. Their texts stand in ``prompts/prompts.toml``."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idbellen.domain.statistics import CallOutcome


class Prompt(enum.Enum):
    """A sentence by its key; the sound file of that name lies in ``sounds/<language>/idbellen/``."""

    WELCOME = "welcome"
    ENTER_CODE_8 = "enter-code-8"
    ENTER_CODE_9 = "enter-code-9"
    ENTER_CODE_10 = "enter-code-10"
    ENTER_CODE_11 = "enter-code-11"
    ENTER_CODE_12 = "enter-code-12"
    ENTER_CODE_13 = "enter-code-13"
    ENTER_CODE_14 = "enter-code-14"
    ENTER_CODE_15 = "enter-code-15"
    ENTER_CODE_16 = "enter-code-16"
    ENTER_CODE_17 = "enter-code-17"
    ENTER_CODE_18 = "enter-code-18"
    ENTER_CODE_19 = "enter-code-19"
    ENTER_CODE_20 = "enter-code-20"
    START_OVER = "start-over"
    WITHOUT_CODE = "without-code"
    WITHOUT_CODE_CONNECT = "without-code-connect"
    WITHOUT_CODE_GOODBYE = "without-code-goodbye"
    CODE_WRONG = "code-wrong"
    CODE_MISSING = "code-missing"
    DATA_AWAITED = "data-awaited"
    CODE_ACCEPTED = "code-accepted"
    PLEASE_WAIT = "please-wait"
    NOT_VERIFIED = "not-verified"
    NOT_VERIFIED_GOODBYE = "not-verified-goodbye"
    GOODBYE = "goodbye"
    APOLOGY = "apology"
    AWAY = "away"
    NO_PLAIN_QUEUE = "no-plain-queue"
    HEAR_AGAIN = "hear-again"
    STILL_WAITING = "still-waiting"
    QUEUE_CLOSED = "queue-closed"
    QUEUE_UNSTAFFED = "queue-unstaffed"
    QUEUE_FULL = "queue-full"
    QUEUE_TOO_LONG = "queue-too-long"
    ONE_MOMENT = "one-moment"
    PLACE_1 = "place-1"
    PLACE_2 = "place-2"
    PLACE_3 = "place-3"
    PLACE_4 = "place-4"
    PLACE_5 = "place-5"
    PLACE_6 = "place-6"
    PLACE_7 = "place-7"
    PLACE_8 = "place-8"
    PLACE_9 = "place-9"
    PLACE_10 = "place-10"
    PLACE_MORE = "place-more"
    WAIT_1 = "wait-1"
    WAIT_2 = "wait-2"
    WAIT_3 = "wait-3"
    WAIT_4 = "wait-4"
    WAIT_5 = "wait-5"
    WAIT_10 = "wait-10"
    WAIT_15 = "wait-15"
    WAIT_20 = "wait-20"
    WAIT_25 = "wait-25"
    WAIT_30 = "wait-30"
    WAIT_MORE = "wait-more"
    # What agents hear: on their desk phone, and before a supervisor listens.
    AGENT_LOGGED_IN = "agent-logged-in"
    AGENT_LOGGED_OUT = "agent-logged-out"
    AGENT_PAUSED = "agent-paused"
    AGENT_AVAILABLE = "agent-available"
    AGENT_UNKNOWN = "agent-unknown"
    SUPERVISOR_LISTENS = "supervisor-listens"


# What a waiting caller presses to hear the place again, as HEAR_AGAIN says.
HEAR_AGAIN_KEY = "1"

_BY_KEY = {prompt.value: prompt for prompt in Prompt}


def enter_code_prompt(digits: int) -> Prompt:
    """Give the sentence that asks for a code of so many digits, 8 to 20."""
    return Prompt[f"ENTER_CODE_{digits}"]


def reason_prompt(reason: CallOutcome) -> Prompt:
    """Give the sentence that says why a queue cannot take or keep a caller: those are named after the reasons."""
    return Prompt[f"QUEUE_{reason.name}"]


def standing_prompts(place: int | None, minutes: int | None) -> list[Prompt]:
    """Give the sentences that tell a place and an expected wait, each left out when it is not known.

    ``minutes`` as :func:`idbellen.domain.expected_wait.spoken_minutes` rounds them.
    """
    told = []
    if place is not None:
        told.append(_BY_KEY.get(f"place-{place}", Prompt.PLACE_MORE))
    if minutes is not None:
        told.append(_BY_KEY.get(f"wait-{minutes}", Prompt.WAIT_MORE))
    return told


def media(prompt: Prompt) -> str:
    """Give the media URI under which Asterisk plays a prompt in the channel's language."""
    return f"sound:idbellen/{prompt.value}"
