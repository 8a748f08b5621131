"""Callers whom a process left in Asterisk, and whom no other will take up: idbellen stays away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idbellen.asterisk.ari import GoneError
from idbellen.asterisk.legs import LEG_PREFIX
from idbellen.asterisk.monitor import SNOOP_PREFIX

if TYPE_CHECKING:
    from idbellen.asterisk.ari import Ari

# The dialplan's: a sentence, and on to the plain queue.
AWAY_CONTEXT = "idbellen-away"


async def send_away(ari: Ari) -> int:
    """Send callers who talk with nobody to the fallback of the dialplan; gives how many. Callers who talk, talk on.

    Raises:
        AriError: Asterisk cannot be reached, or refuses.

    """
    try:
        application = await ari.request("GET", f"/applications/{ari.app}")
    except GoneError:
        # Nothing of it is left.
        return 0
    together = [set(bridge["channels"]) for bridge in await ari.request("GET", "/bridges")]
    talking = {channel for inside in together if len(inside) > 1 for channel in inside}
    sent = 0
    for channel in set(application["channel_ids"]) - talking:
        if channel.startswith((LEG_PREFIX, SNOOP_PREFIX)):
            await ari.discard(f"/channels/{channel}")
            continue
        try:
            await ari.request("POST", f"/channels/{channel}/continue", context=AWAY_CONTEXT, extension="s", priority=1)
            sent += 1
        except GoneError:
            # Hung up in this very moment, or no longer ours.
            continue
    return sent
