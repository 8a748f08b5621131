"""The names by which calls, sessions, agents and queues are known, and the secret of a call.

All are strings, and no two are of one kind: with a type each, the type checker refuses an agent's name where a queue's
is wanted. A string becomes one where it comes in: from the configuration, a request, the command line, a store or the
PBX. From there on the type is carried. It says what a string is meant as, not that there is such a thing.
"""

from __future__ import annotations

from typing import NewType

# A call, in stores and logs: ours, made when it comes in, of which nobody can learn anything. Not the id of the
# caller's channel, which is Asterisk's. Calls on another platform (``link_phone``) have that platform's id in it.
CallId = NewType("CallId", str)

# The reference of a session: ours, made when a citizen begins. It opens nothing, and is fit for a log.
SessionRef = NewType("SessionRef", str)

# An account of an agent or a supervisor: what it was given on the command line, and what is logged in with.
AgentName = NewType("AgentName", str)

# A queue of ours, as the configuration calls it. Those that a PBX keeps have its names, which are strings here.
QueueName = NewType("QueueName", str)

# What a call gets in exchange for the citizen's code: ours, drawn at random. The screen of the agent in the call has it
# too, and fetches the attributes by it, so it is in no log.
Secret = NewType("Secret", str)
