"""Each fault of the set-up, made on purpose: it has to be told in one line that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roots import NEWCOMER

if TYPE_CHECKING:
    from roots import Machine
    from ways import Outcome

AWAY = "http://127.0.0.1:9/"
PROXY = "/etc/apt/apt.conf.d/99away"
MIRROR_AWAY = f"""echo 'Acquire::http::Proxy "{AWAY}";' >{PROXY}"""
MIRROR_BACK = f"rm {PROXY}"
# What is longer is no line that anybody reads.
LONGEST = 400
SUDOERS = f"/etc/sudoers.d/{NEWCOMER}"
# All that is said, but for progress, what make itself says, and empty lines.
PROGRESS = r"^setup: installing|^Asterisk: |^\.run/prompts: |: (starting|registering) \.\.\.$|^make: |^$"


@dataclass(frozen=True)
class Fault:
    """One fault. ``before`` and ``after``: what root does around it; ``room``: a folder, and how much fits into it."""

    what: str
    expected: str
    typed: str = "make run"
    before: str = "true"
    after: str = "true"
    room: tuple[str, str] | None = None


# In the order of the set-up, since each leaves behind what came before it. All paths are in the checkout or absolute.
FAULTS = (
    Fault(
        "the checkout belongs to somebody else",
        f"is not writable for {NEWCOMER}: clone it again as this user",
        before="chown root .",
        after=f"chown {NEWCOMER} .",
    ),
    Fault(
        "no sudo",
        "there is no sudo to install them with; as root: apt-get install",
        before="mv /usr/bin/sudo /usr/bin/no-sudo",
        after="mv /usr/bin/no-sudo /usr/bin/sudo",
    ),
    Fault("sudo refuses", "apt-get update failed: sudo: ", before=f"mv {SUDOERS} /", after=f"mv /{NEWCOMER} {SUDOERS}"),
    Fault(
        "the mirror cannot be reached",
        "Can the mirror be reached that apt is told to use?",
        before=MIRROR_AWAY,
        after=MIRROR_BACK,
    ),
    Fault("the disk is full: packages", "the disk is full that holds /var/cache/apt", room=("/var/cache/apt", "8m")),
    Fault(
        "the package index cannot be reached",
        "Can the package index be reached that pip is told to use?",
        typed=f"PIP_INDEX_URL={AWAY} make run",
    ),
    Fault("the disk is full: Python", "the disk is full that holds .venv", room=(".venv", "20m")),
    Fault(
        "the mirror cannot be reached: Asterisk",
        "could not unpack from the mirror that apt is told to use",
        before=MIRROR_AWAY,
        after=MIRROR_BACK,
    ),
    Fault("the disk is full: Asterisk", "the disk is full that holds .run", room=(".run", "60m")),
    Fault("the disk is full: prompts", "No space left on device", room=(".run/prompts", "200k")),
    Fault("the disk is full: the demo", "No space left on device", room=(".run/demo", "16k")),
    Fault(
        "a port is taken",
        "port 8080 (municipality) cannot be used: Address already in use",
        typed="python3 -m http.server 8080 --bind 127.0.0.1 >/dev/null 2>&1 & sleep 1; make run",
    ),
    Fault(
        "two ports are one",
        "port 8080 would be both municipality and agent phone",
        typed="IDBELLEN_DEMO_SIP_PORT=8070 make run",
    ),
    Fault(
        "something belongs to root",
        f".venv belongs to root, not to {NEWCOMER}: sudo make clean, then try again",
        before="chown -R root .venv",
        after=f"chown -R {NEWCOMER} .venv",
    ),
)


def bring_about(machine: Machine, outcome: Outcome) -> None:
    """Make each of them, and see what is said."""
    for fault in FAULTS:
        mount = "true"
        if fault.room:
            place, size = fault.room
            own = f"uid={NEWCOMER},gid={NEWCOMER}," if not place.startswith("/") else ""
            mount = f"install -d -o {NEWCOMER} {place}; mount -t tmpfs -o {own}size={size} tmpfs {place}"
        user = f"setpriv --reuid={NEWCOMER} --regid={NEWCOMER} --init-groups"
        _, said = machine.type(
            f"""cd {machine.checkout}; ({fault.before}; {mount}) >&2
{user} timeout 300 sh -c '{fault.typed}' 2>&1 | grep -vE '{PROGRESS}' >/tmp/said
({fault.after}) >&2
echo "lines: $(wc -l </tmp/said)"; cat /tmp/said""",
            user="root",
        )
        head, _, told = said.rpartition("lines: ")
        number, _, told = told.strip().partition("\n")
        if head == "" and number == "1" and fault.expected in told and len(told) <= LONGEST:
            outcome.cells[fault.what] = told.replace(machine.home, "~")
        else:
            outcome.fail(fault.what, f"{head.strip()} {told.strip()}".strip().replace("\n", " / ") or "nothing")
