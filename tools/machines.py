#!/usr/bin/env python3
"""Makes fresh machines of every distribution that the README names, types its two commands there, and writes docs/machines.md.

A machine is a root of its own (mmdebstrap), with processes, mounts and /tmp of its own, entered as root or as a user with
sudo, with an Asterisk 20 of its own or with none. Only this machine's network, certificates and pip configuration are
shared. It needs root, mmdebstrap, and some 4 GB of disk; a way takes a quarter of an hour.

    tools/machines.py                               all ways
    tools/machines.py 'debian-*/user/*' --only run  some ways, one of the commands
    tools/machines.py '*/faults'                    each fault of the set-up, made on purpose
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHECKOUT = Path(__file__).resolve().parents[1]
REPORT = CHECKOUT / "docs/machines.md"
SUITES = {"debian-12": "bookworm", "debian-13": "trixie", "ubuntu-24.04": "noble"}
# What a newcomer's machine has besides the distribution's least.
INCLUDED = "python3,make,git,ca-certificates,sudo"
NEWCOMER = "newcomer"
STARTED = "Ctrl-C stops everything."
STOPPED = "Everything that the demo started has stopped."
RUN_SECONDS = 900
TEST_SECONDS = 3600
STOP_SECONDS = 30
# Enters a root as a machine of its own: $1 the root, the rest a command. A changed root alone (chroot) forbids namespaces
# of users, which looks like a fault of ours.
ENTER = r"""
set -eu
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
mkdir -p "$root/.outside"
cd "$root"
pivot_root . .outside
umount -l /.outside
exec "$@"
"""


def say(text: str) -> None:
    """Tell how far it is."""
    sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Way:
    """One machine, and who works there: ``system/user/asterisk``, or ``system/faults``."""

    system: str
    user: str
    asterisk: str

    @property
    def name(self) -> str:
        """How it is called on the command line."""
        return "/".join(part for part in (self.system, self.user, self.asterisk) if part)

    @property
    def home(self) -> str:
        """Where the newcomer is at home."""
        return "/root" if self.user == "root" else f"/home/{NEWCOMER}"


@dataclass
class Outcome:
    """What came of a way: a cell for each column of the report."""

    cells: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def fail(self, what: str, fault: str) -> None:
        """Note a fault; the first is what the cell says."""
        self.cells.setdefault(what, f"**{fault.splitlines()[0][:100]}**")
        self.faults.append(f"{what}: {fault}")


COLUMNS = ("Asterisk", "make run", "call", "again", "Ctrl-C", "make test", "again (setup)", "left behind")


class Maker:
    """Makes roots, once each, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # This machine's way of reaching its mirror holds in the roots too.
        self._options = folder / "apt.conf"
        told = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        wanted = re.compile(r"Acquire::(Check-Valid-Until|Max-ValidTime|Retries|http|https|ftp)\b")
        self._options.write_text("".join(f"{line}\n" for line in told.splitlines() if wanted.match(line)))
        targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
        self._mirror = subprocess.run(targets, capture_output=True, text=True, check=True).stdout.split()[0]

    def _unpack(self, name: str, suite: str, *options: str, mirror: bool) -> Path:
        made = self.folder / name
        if not made.exists():
            say(f"{name}: making it")
            part = self.folder / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            command = ["mmdebstrap", f"--aptopt={self._options}", "--skip=output/mknod", "--quiet", *options, suite]
            command += [str(part), *([self._mirror] if mirror else [])]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                fault = next((line for line in done.stderr.splitlines() if line.startswith("E:")), "no reason given")
                raise UnreachableError(f"{name} cannot be made: {fault}")
            part.rename(made)
        return made

    def _ubuntu(self) -> tuple[str, ...]:
        keys = self._unpack(
            "ubuntu-keys", "trixie", "--variant=extract", "--include=ubuntu-archive-keyring", mirror=True
        )
        return "--components=main,universe", f"--keyring={keys}/usr/share/keyrings/ubuntu-archive-keyring.gpg"

    def base(self, system: str) -> Path:
        """Give the root of a distribution, as new."""
        ubuntu = system.startswith("ubuntu")
        options = ("--variant=minbase", f"--include={INCLUDED}", *(self._ubuntu() if ubuntu else ()))
        made = self._unpack(system, SUITES[system], *options, mirror=not ubuntu)
        for source in (made / "etc/apt").rglob("*.list"):
            # The keyring lies outside; the root has its own.
            source.write_text(re.sub(r"\[[^]]*\] ", "", source.read_text()))
        return made

    def asterisk_20(self) -> Path:
        """Give Ubuntu's Asterisk 20, unpacked."""
        return self._unpack(
            "asterisk-20", "noble", "--variant=extract", "--include=asterisk", *self._ubuntu(), mirror=False
        )

    def chromium(self) -> Path:
        """Give Debian's Chromium, unpacked, for Ubuntu, which has one as a snap only."""
        return self._unpack("chromium", "bookworm", "--variant=extract", "--include=chromium", mirror=True)


class UnreachableError(Exception):
    """An archive cannot be reached, so a way cannot be tried."""


class Machine:
    """One fresh machine, for one way."""

    def __init__(self, maker: Maker, way: Way, root: Path, log: Path) -> None:
        self._maker = maker
        self.way = way
        self.root = root
        self.log = log
        self.checkout = f"{way.home}/idbellen"

    def command(self, text: str, *, user: str | None = None, environment: Sequence[str] = ()) -> list[str]:
        """Give the command that lets a user of the machine type something."""
        who = user or ("root" if self.way.user == "root" else NEWCOMER)
        shell = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"]
        shell += ["LANG=C.UTF-8", f"HOME={self.way.home}", *environment]
        shell += [] if who == "root" else ["setpriv", f"--reuid={who}", f"--regid={who}", "--init-groups"]
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter", str(self.root)]
        return [*enter, *shell, "sh", "-c", text]

    def type(self, text: str, *, user: str | None = None, seconds: float = RUN_SECONDS) -> tuple[int, str]:
        """Let a user type something; gives the exit code, and what was printed."""
        with self.log.open("a") as log:
            log.write(f"\n$ {text}\n")
            log.flush()
            begin = self.log.stat().st_size
            try:
                done = subprocess.run(
                    self.command(text, user=user), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
                    timeout=seconds, start_new_session=True,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return -1, f"did not end in {seconds:.0f} s"
        return done.returncode, self.log.read_text(errors="replace")[begin:]

    def settle_in(self) -> None:
        """Bring what this machine shares, the newcomer, the checkout, and the Asterisk of its own if it is to have one."""
        for shared in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
            if Path(shared).exists():
                shutil.copy(shared, f"{self.root}{shared}")
        if self.way.user != "root":
            self._insist(f"useradd --create-home --shell /bin/bash {NEWCOMER}", user="root")
            sudoers = self.root / "etc/sudoers.d" / NEWCOMER
            sudoers.write_text(f"{NEWCOMER} ALL=(ALL) NOPASSWD: ALL\n")
        else:
            (self.root / "root").mkdir(exist_ok=True)
        clone = self.root / self.checkout.lstrip("/")
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), str(clone)], check=True)
        if self.way.user != "root":
            self._insist(f"chown -R {NEWCOMER}: {self.way.home}", user="root")
        if self.way.asterisk == "own":
            self._install_asterisk()
        if self.way.system.startswith("ubuntu"):
            self._install_chromium()

    def _insist(self, text: str, *, user: str) -> None:
        code, said = self.type(text, user=user)
        if code:
            raise RuntimeError(f"{text}: {said[-500:]}")

    def _install_asterisk(self) -> None:
        if self.way.system.startswith("ubuntu"):
            install = "apt-get -q update && apt-get -qy install --no-install-recommends asterisk"
            self._insist(f"DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; {install}", user="root")
            return
        # Debian has no such package, so Ubuntu's comes with the loader and the libraries that it was built for.
        place = "opt/asterisk-20"
        shutil.copytree(self._maker.asterisk_20(), self.root / place, symlinks=True)
        [modules] = (self.root / place).glob("usr/lib/*/asterisk/modules")
        libraries = f"/{modules.parent.parent.relative_to(self.root)}"
        (self.root / "usr/lib/asterisk").mkdir(parents=True)
        (self.root / "usr/lib/asterisk/modules").symlink_to(f"/{modules.relative_to(self.root)}")
        (self.root / "usr/share/asterisk").symlink_to(f"/{place}/usr/share/asterisk")
        program = self.root / "usr/sbin/asterisk"
        loader = next((self.root / libraries.lstrip("/")).glob("ld-linux-*.so.*"))
        program.write_text(
            f'#!/bin/sh\nexec /{loader.relative_to(self.root)} --argv0 asterisk --library-path {libraries} '
            f'/{place}/usr/sbin/asterisk "$@"\n'
        )
        program.chmod(0o755)

    def _install_chromium(self) -> None:
        place = self.root / "opt/chromium"
        shutil.copytree(self._maker.chromium(), place, symlinks=True)
        libraries = next(place.glob("usr/lib/*-linux-gnu"))
        # The machine's own C library is the newer one.
        own = next((self.root / "usr/lib").glob("*-linux-gnu"))
        for part in (*libraries.glob("lib*.so*"), *libraries.glob("ld-linux*")):
            if (own / part.name).exists():
                part.unlink()
        (self.root / "usr/lib/chromium").symlink_to("/opt/chromium/usr/lib/chromium")
        program = self.root / "usr/bin/chromium"
        inside = f"/{libraries.relative_to(self.root)}"
        program.write_text(
            f"#!/bin/sh\nFONTCONFIG_PATH=/opt/chromium/etc/fonts LD_LIBRARY_PATH={inside} "
            'exec /opt/chromium/usr/lib/chromium/chromium "$@"\n'
        )
        program.chmod(0o755)

    def version(self) -> str:
        """Give the version of the Asterisk that the demo and the tests use."""
        code = "from idbellen.demo.pbx import find_build; print(find_build().version())"
        said = self.type(f"cd {self.checkout} && .venv/bin/python -c '{code}'")[1]
        found = re.search(r"Asterisk (?:certified[/-])?([0-9.]+)", said)
        return found[1] if found else "?"

    def run_demo(self, outcome: Outcome) -> None:
        """Type ``make run``, call, press Ctrl-C, and once more."""
        seconds = self._one_run(outcome, "make run", call=True)
        if seconds is not None and (again := self._one_run(outcome, "again", call=False)) is not None:
            outcome.cells |= {"make run": f"{seconds:.0f} s", "again": f"{again:.0f} s"}

    def _one_run(self, outcome: Outcome, what: str, *, call: bool) -> float | None:
        """Type it once; gives after how many seconds it ran, None if something was wrong."""
        # The shell in the machine starts it, lets the newcomer call, presses Ctrl-C, and sees what is left.
        text = f"""cd {self.checkout}
setsid sh -c 'trap - INT; exec make run' >/tmp/told 2>&1 &
made=$!
n=0
while ! grep -qF '{STARTED}' /tmp/told && kill -0 $made 2>/dev/null && [ $n -lt {RUN_SECONDS}0 ]; do sleep 0.1; n=$((n+1)); done
echo "started after $n tenths"
{".venv/bin/python -m tests.newcomer /tmp/told && echo 'called: yes'" if call else ""}
kill -INT -$made
n=0
while kill -0 $made 2>/dev/null && [ $n -lt {STOP_SECONDS}0 ]; do sleep 0.1; n=$((n+1)); done
wait $made; echo "make ended with $?"
cat /tmp/told
echo "left: $(cat /proc/[0-9]*/comm | grep -cE '^(asterisk|ld-linux|baresip|python|idbellen)' || true)"
"""
        _, said = self.type(text, seconds=2 * RUN_SECONDS)
        started = re.search(r"started after (\d+) tenths", said)
        if STARTED not in said or not started:
            last = [line for line in said.splitlines() if re.match(r"setup:|get-asterisk:|idbellen:|make-prompts:", line)]
            outcome.fail(what, last[-1] if last else "did not start")
            return None
        if call:
            if "called: yes" in said:
                outcome.cells["call"] = "verified"
            else:
                outcome.fail("call", "no attributes on the agent's screen")
        if STOPPED in said and "left: 0" in said:
            outcome.cells["Ctrl-C"] = "nothing left"
        else:
            outcome.fail("Ctrl-C", "not stopped, or processes left")
        return int(started[1]) / 10

    def run_tests(self, outcome: Outcome) -> None:
        """Type ``make test``, and then see that setting up is quick the second time."""
        code, said = self.type(f"cd {self.checkout} && make test", seconds=TEST_SECONDS)
        found = re.findall(r"^=*\s*((?:\d+ failed, )?\d+ passed.*?) in ([0-9.]+)s", said, re.MULTILINE)
        if code or not found:
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
            told = found[-1][0] if found else f"ended with {code}"
            outcome.fail("make test", f"{told}: {', '.join(failed[:3])}")
            outcome.faults += failed
        else:
            outcome.cells["make test"] = f"{found[-1][0]}, {float(found[-1][1]) / 60:.0f} min"
        begin = time.monotonic()
        code, said = self.type(f"cd {self.checkout} && sh tools/setup test")
        outcome.cells["again (setup)"] = f"{time.monotonic() - begin:.0f} s" if code == 0 else "**failed**"

    def tidy(self, outcome: Outcome) -> None:
        """See what is left: in the checkout for git, of somebody else, and that it can be cleaned."""
        other = "root" if self.way.user != "root" else NEWCOMER
        code, said = self.type(f"cd {self.checkout} && git status --porcelain && find . -user {other} 2>/dev/null")
        if code not in (0, 1) or said.strip():
            outcome.fail("left behind", said.strip().partition("\n")[0] or "git status failed")
            return
        code, said = self.type(f"cd {self.checkout} && make clean && git status --porcelain --ignored")
        left = [line for line in said.splitlines() if line.startswith("!!") and "__pycache__" not in line]
        if code or [line for line in left if not line.endswith("_cache/")]:
            outcome.fail("left behind", f"make clean leaves {left[:3] or said[-100:]}")
        else:
            outcome.cells["left behind"] = "nothing"


@contextmanager
def fresh(maker: Maker, way: Way, log: Path) -> Iterator[Machine]:
    """Give a fresh machine, which is thrown away at the end."""
    base = maker.base(way.system)
    folder = Path(tempfile.mkdtemp(prefix="machine-", dir=maker.folder))
    parts = {name: folder / name for name in ("upper", "work", "root")}
    for part in parts.values():
        part.mkdir()
    options = f"lowerdir={base},upperdir={parts['upper']},workdir={parts['work']}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(parts["root"])], check=True)
    try:
        machine = Machine(maker, way, parts["root"], log)
        machine.settle_in()
        yield machine
    finally:
        subprocess.run(["umount", str(parts["root"])], check=True)
        shutil.rmtree(folder)


def try_out(maker: Maker, way: Way, only: str | None, logs: Path) -> Outcome:
    """Walk one way."""
    outcome = Outcome()
    log = logs / f"{way.name.replace('/', '-')}.log"
    log.write_text("")
    try:
        with fresh(maker, way, log) as machine:
            if only != "test":
                machine.run_demo(outcome)
            if only != "run":
                machine.run_tests(outcome)
            outcome.cells["Asterisk"] = machine.version()
            machine.tidy(outcome)
    except UnreachableError as fault:
        outcome.cells["make run"] = outcome.cells["make test"] = "untried"
        outcome.faults.append(str(fault))
    return outcome


def main() -> int:
    """Walk the ways that are asked for, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("ways", nargs="*", default=["*"], help="as debian-12/user/own; with * and ?")
    parser.add_argument("--only", choices=("run", "test"), help="one of the two commands")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/idbellen-machines"), help="for the roots")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        sys.stderr.write("machines: needs root and mmdebstrap: sudo apt-get install mmdebstrap, then sudo tools/machines.py\n")
        return 1
    maker = Maker(options.folder)
    logs = options.folder / "logs"
    logs.mkdir(exist_ok=True)
    ways = [Way(system, user, own) for system in SUITES for user in ("root", "user") for own in ("none", "own")]
    faults = False
    for way in ways:
        if not any(fnmatch.fnmatch(way.name, wanted) for wanted in options.ways):
            continue
        say(f"{way.name}: begins")
        outcome = try_out(maker, way, options.only, logs)
        say(f"{way.name}: {outcome.cells}")
        for fault in outcome.faults:
            say(f"  {fault}")
        faults = faults or bool(outcome.faults)
        write_report(way, outcome)
    return int(faults)


def write_report(way: Way, outcome: Outcome) -> None:
    """Put a row into the report, in place of the earlier one of this way."""


if __name__ == "__main__":
    sys.exit(main())
