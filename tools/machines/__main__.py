"""Types the two commands of the README on fresh machines of every distribution that it names; see docs/machines.md.

It needs root, mmdebstrap, and some 6 GB of disk. A way takes a quarter of an hour:

    python3 tools/machines                                  all ways, and the faults of the set-up
    python3 tools/machines 'debian-*/user/*' --only run     some ways, one of the two commands
    python3 tools/machines '*/faults'                       only the faults
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import faults
import report
from roots import CHECKOUT, NEWCOMER, SUITES, Maker, UnreachableError, fresh
from ways import Outcome, asterisk_version, make_run, make_test, tidy


def main() -> int:
    """Walk the ways that are asked for, and write the report."""
    parser = argparse.ArgumentParser(prog="tools/machines", description="The two commands on fresh machines.")
    parser.add_argument(
        "ways", nargs="*", default=["*"], help="such as debian-12/user/own, ubuntu-24.04/faults; * and ?"
    )
    parser.add_argument("--only", choices=("run", "test"), help="one of the two commands")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/idbellen-machines"), help="for the roots")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        sys.stderr.write("machines: this takes root and mmdebstrap: sudo apt-get install mmdebstrap\n")
        return 1
    head = ["git", "-C", str(CHECKOUT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    maker = Maker(options.folder)
    ways = [f"{system}/{user}/{own}" for system in SUITES for user in ("root", "user") for own in ("none", "own")]
    ways += [f"{system}/faults" for system in SUITES]
    all_well = True
    for way in ways:
        if any(fnmatch.fnmatch(way, wanted) for wanted in options.ways):
            all_well &= walk(maker, way, options.only, commit)
    return 0 if all_well else 1


def walk(maker: Maker, way: str, only: str | None, commit: str) -> bool:
    """Walk one way; tells whether all was well."""
    say(f"{way}: begins")
    system, user, *asterisk = way.split("/")
    outcome = Outcome()
    log = maker.folder / f"{way.replace('/', '-')}.log"
    log.write_text("")
    try:
        with fresh(maker, system, "root" if user == "root" else NEWCOMER, log) as machine:
            if user == "faults":
                faults.bring_about(machine, outcome)
            else:
                if asterisk == ["own"]:
                    machine.install_asterisk(maker)
                if system.startswith("ubuntu") and only != "run":
                    machine.install_chromium(maker)
                if only != "test":
                    make_run(machine, outcome)
                if only != "run":
                    make_test(machine, outcome)
                outcome.cells["Asterisk"] = asterisk_version(machine)
                tidy(machine, outcome)
    except UnreachableError as fault:
        outcome.fail("make run", f"untried: {fault}")
        outcome.fail("make test", f"untried: {fault}")
    if user == "faults":
        report.keep_faults(system, outcome.cells)
    else:
        report.keep_way(way, outcome.cells, commit)
    say(f"{way}: {'all well' if not outcome.faults else '; '.join(outcome.faults)} (all of it in {log})")
    return not outcome.faults


def say(text: str) -> None:
    """Tell how far it is."""
    sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
