"""docs/machines.md: what came of each way, with the commit; a way that is walked again replaces its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roots import CHECKOUT, SUITES

if TYPE_CHECKING:
    from collections.abc import Iterable

REPORT = CHECKOUT / "docs/machines.md"
HEAD = """# The two commands on fresh machines

Written by `make test-machines` (`tools/machines`, as root). It makes a root of each distribution with nothing in it
but Python, make, git, sudo and certificates, enters it as a machine of its own (processes, mounts, `/tmp`), clones
this repository there, and types the two commands as root, or as a user with sudo.

- **own Asterisk**: *own*: one of version 20 is there before (Ubuntu's package; on Debian, which has none, Ubuntu's
  with its own loader and libraries). *none*: setting up unpacks one (on Debian sid's, on Ubuntu its own).
- **make run**: from nothing to "idbellen runs", and the commit. **call**: a made-up citizen logs in, `make call`
  calls, and the agent's dashboard is given attributes with this status. **again**: the second `make run`.
  **Ctrl-C**: what is left after it.
- **make test**: the whole suite, how long pytest took, and the commit. **set up again**: the second time. **left
  behind**: what git sees, files of another owner, and what `make clean` leaves.
- Ubuntu has Chromium as a snap only, and Playwright's own download could not be reached where this was made: there
  the tests use Debian 12's Chromium, which was put there before.
"""
FAULTS_HEAD = """## Faults of the set-up

Each was made on purpose on a fresh machine, for a user with sudo. This one line came of it, beside progress and
what make itself says.
"""
COLUMNS = ("Asterisk", "make run", "call", "again", "Ctrl-C", "make test", "set up again", "left behind")
WAY_COLUMNS = ("machine", "user", "own Asterisk", *COLUMNS)
FAULT_COLUMNS = ("machine", "fault", "what is said")
# Each command, with the commit behind what came of it, and the cells that belong to it.
COMMANDS = {"make run": ("call", "again", "Ctrl-C"), "make test": ("set up again",)}


def keep_way(name: str, cells: dict[str, str], commit: str) -> None:
    """Put what came of a way into the report."""
    ways, faults = _read()
    kept = ways.get(name, {})
    for command, more in COMMANDS.items():
        if command in cells:
            # What came of it earlier is over, also where it did not come so far this time.
            kept |= dict.fromkeys(more, "")
    told = {what: f"{cell} ({commit})" if what in COMMANDS else cell for what, cell in cells.items()}
    ways[name] = kept | told
    _write(ways, faults)


def keep_faults(system: str, cells: dict[str, str]) -> None:
    """Put what is said of each fault into the report."""
    ways, faults = _read()
    faults[system] = cells
    _write(ways, faults)


def _write(ways: dict[str, dict[str, str]], faults: dict[str, dict[str, str]]) -> None:
    lines = [HEAD, *_table(WAY_COLUMNS, ([*name.split("/"), *_cells(ways[name])] for name in sorted(ways)))]
    told = [(system, what, said) for system in sorted(faults) for what, said in faults[system].items()]
    lines += ["", FAULTS_HEAD, *_table(FAULT_COLUMNS, told)]
    REPORT.write_text("\n".join(lines) + "\n")


def _cells(of: dict[str, str]) -> list[str]:
    return [of.get(what, "") for what in COLUMNS]


def _table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> list[str]:
    all_rows = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in all_rows]


def _read() -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    ways: dict[str, dict[str, str]] = {}
    faults: dict[str, dict[str, str]] = {}
    for line in REPORT.read_text().splitlines() if REPORT.exists() else ():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] not in SUITES:
            continue
        if len(cells) == len(WAY_COLUMNS):
            ways["/".join(cells[:3])] = dict(zip(COLUMNS, cells[3:], strict=True))
        else:
            system, what, said = cells
            faults.setdefault(system, {})[what] = said
    return ways, faults
