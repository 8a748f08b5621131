"""The two commands, as a newcomer types them on a fresh machine."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roots import Machine

STARTED = "Ctrl-C stops everything."
STOPPED = "Everything that the demo started has stopped."
START_SECONDS = 900
STOP_SECONDS = 30
TEST_SECONDS = 3600
# What the set-up and the demo say when they give up.
FAULT = re.compile(r"(setup|get-asterisk|make-prompts|idbellen): ")
# The shell in the machine starts it, lets the newcomer call, presses Ctrl-C as a terminal does, and sees what is left.
RUN = r"""
setsid sh -c 'trap - INT; exec make run' >/tmp/told 2>&1 &
made=$!
n=0
until grep -qF '@STARTED@' /tmp/told || ! kill -0 $made 2>/dev/null || [ $n -ge @START_SECONDS@0 ]; do
    sleep 0.1; n=$((n+1))
done
echo "started after $n tenths"
@CALL@
kill -INT -$made
n=0
while kill -0 $made 2>/dev/null && [ $n -lt @STOP_SECONDS@0 ]; do sleep 0.1; n=$((n+1)); done
wait $made
cat /tmp/told
echo "left: $(cat /proc/[0-9]*/comm | grep -cE '^(asterisk|ld-linux|baresip|python|idbellen)')"
"""
CALL = ".venv/bin/python -m tests.support.newcomer /tmp/told && echo 'called: yes'"


@dataclass
class Outcome:
    """What came of a way: a cell for each column of the report, and all that was wrong."""

    cells: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def fail(self, what: str, fault: str) -> None:
        """Note a fault."""
        self.cells[what] = f"**{fault[:200]}**"
        self.faults.append(f"{what}: {fault}")


def make_run(machine: Machine, outcome: Outcome) -> None:
    """Type ``make run``, call, press Ctrl-C, and once more."""
    if _run_once(machine, outcome, "make run", call=True):
        _run_once(machine, outcome, "again", call=False)


def _run_once(machine: Machine, outcome: Outcome, what: str, *, call: bool) -> bool:
    script = RUN.replace("@CALL@", CALL if call else "")
    for name in ("STARTED", "START_SECONDS", "STOP_SECONDS"):
        script = script.replace(f"@{name}@", str(globals()[name]))
    _, said = machine.type(f"cd {machine.checkout}\n{script}")
    started = re.search(r"started after (\d+) tenths", said)
    if STARTED not in said or not started:
        told = [line for line in said.splitlines() if FAULT.match(line)]
        outcome.fail(what, told[-1] if told else "did not start")
        return False
    outcome.cells[what] = f"{int(started[1]) / 10:.0f} s"
    if call:
        outcome.cells["call"] = "verified"
        if "called: yes" not in said:
            outcome.fail("call", "no attributes on the agent's screen")
    if STOPPED not in said or "left: 0" not in said:
        outcome.fail("Ctrl-C", "it did not stop, or processes are left")
    else:
        outcome.cells.setdefault("Ctrl-C", "nothing left")
    return True


def make_test(machine: Machine, outcome: Outcome) -> None:
    """Type ``make test``, and then see that setting up is quick the second time."""
    code, said = machine.type(f"cd {machine.checkout} && make test", seconds=TEST_SECONDS)
    found = re.search(r"^=*\s*((?:\d+ \w+, )*\d+ \w+) in ([0-9.]+)s", said, re.MULTILINE)
    told = f"{found[1]}, {float(found[2]) / 60:.0f} min" if found else f"ended with {code}"
    if code or not found:
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        outcome.fail("make test", f"{told}: {', '.join(failed)}")
    else:
        outcome.cells["make test"] = told
    begin = time.monotonic()
    code, _ = machine.type(f"cd {machine.checkout} && sh tools/setup test")
    outcome.cells["set up again"] = f"{time.monotonic() - begin:.0f} s"
    if code:
        outcome.fail("set up again", f"ended with {code}")


def asterisk_version(machine: Machine) -> str:
    """Give the version of the Asterisk that the demo and the tests use."""
    code = "from idbellen.demo.pbx import find_build; print(find_build().version())"
    _, said = machine.type(f"cd {machine.checkout} && .venv/bin/python -c '{code}'")
    found = re.search(r"Asterisk (?:certified[/-])?([0-9.]+)", said)
    return found[1] if found else "?"


def tidy(machine: Machine, outcome: Outcome) -> None:
    """See what is left in the checkout: for git, of somebody else, and after ``make clean``."""
    others = f"find . ! -user {machine.user}"
    _, said = machine.type(f"cd {machine.checkout} && git status --porcelain && {others}")
    _, after = machine.type(f"cd {machine.checkout} && make clean >/dev/null && git status --porcelain --ignored")
    caches = re.compile(r"!! \S*(__pycache__|_cache)/$")
    left = [*said.split("\n"), *(line for line in after.split("\n") if not caches.match(line))]
    if any(left):
        outcome.fail("left behind", ", ".join(line for line in left if line))
    else:
        outcome.cells["left behind"] = "nothing"
