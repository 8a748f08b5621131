"""On which of several Asterisks each phone is, and how it is rung from another."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from idbellen.domain.agents import PhoneState, together

if TYPE_CHECKING:
    from collections.abc import Mapping

# The name of the Asterisk, or of the first of several.
MAIN = "main"
# Where a phone is rung first.
_RANKS = {PhoneState.IDLE: 0, PhoneState.BUSY: 1, PhoneState.UNKNOWN: 2, PhoneState.UNREGISTERED: 3}
# What the others know a registered phone by: the name of its endpoint, and nothing that a dialled string gives meaning.
_PHONE = re.compile(r"PJSIP/([A-Za-z0-9_.-]+)")


class Whereabouts:
    """What each Asterisk says of each phone. ``trunks``: the endpoint over which the others reach each of them.

    With one Asterisk all is as that one says.
    """

    def __init__(self, trunks: Mapping[str, str]) -> None:
        self._trunks = trunks
        self._told: defaultdict[str, dict[str, PhoneState | None]] = defaultdict(dict)

    def tell(self, server: str, endpoint: str, state: PhoneState | None) -> PhoneState:
        """Note what one of them says, None for no endpoint of its; gives how the phone is now, wherever it is."""
        self._told[endpoint][server] = state
        return self._state(endpoint)

    def forget(self, server: str) -> dict[str, PhoneState]:
        """Note that one of them cannot be reached; gives how all phones are now that it told of."""
        concerned = [endpoint for endpoint, told in self._told.items() if server in told]
        for endpoint in concerned:
            del self._told[endpoint][server]
        return {endpoint: self._state(endpoint) for endpoint in concerned}

    def dial(self, endpoint: str, server: str) -> str:
        """Give what is rung on one of them for this phone: over a trunk if it is only on another."""
        phone = _PHONE.fullmatch(endpoint)
        told = {name: state for name, state in self._told.get(endpoint, {}).items() if state}
        if phone and told:
            # Where it is not registered it is rung all the same, to find out, but only where it is known.
            best = min(told, key=lambda name: (_RANKS[told[name]], name != server))
            if best != server and (_RANKS[told[best]] < _RANKS[PhoneState.UNKNOWN] or server not in told):
                return f"PJSIP/{phone[1]}@{self._trunks[best]}"
        return endpoint

    def _state(self, endpoint: str) -> PhoneState:
        told = self._told[endpoint]
        known = [state for state in told.values() if state]
        if known:
            return together(known)
        # Known nowhere that can be asked. It may be on the one that cannot, where nobody can be rung.
        return PhoneState.UNREGISTERED if 0 < len(told) < len(self._trunks) else PhoneState.UNKNOWN
