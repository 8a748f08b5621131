"""The sentences that a caller can hear. Their texts stand in ``prompts/prompts.toml``."""

from __future__ import annotations

import enum


class Prompt(enum.Enum):
    """A sentence by its key; the sound file of that name lies in ``sounds/<language>/idbellen/``."""

    WELCOME = "welcome"
    ENTER_CODE = "enter-code"
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


def media(prompt: Prompt) -> str:
    """Give the media URI under which Asterisk plays a prompt in the channel's language."""
    return f"sound:idbellen/{prompt.value}"
