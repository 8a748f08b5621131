"""Why what somebody asks for cannot be done; the pages have a sentence for each."""

from __future__ import annotations

import enum


class Refusal(enum.StrEnum):
    """A reason. The value is what the websockets say."""

    GONE = "gone"  # no such call, agent or caller is here
    TARGET = "target"  # this cannot be chosen
    LATER = "later"  # not now
    PHONE = "phone"  # the phone could not be connected
    UNRECORDED = "unrecorded"  # the audit trail cannot be written
    FAILED = "failed"  # by a fault, which the log tells
