"""Roots of distributions, made with mmdebstrap, and entered as machines of their own."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
SUITES = {"debian-12": "bookworm", "debian-13": "trixie", "ubuntu-24.04": "noble"}
# What a newcomer's machine has besides the distribution's least.
INCLUDED = "python3,make,git,ca-certificates,sudo"
NEWCOMER = "newcomer"
COMMAND_SECONDS = 1800
# Enters a root as a machine of its own: $1 the root, the rest a command. A changed root alone (chroot) forbids
# namespaces of users, which then looks like a fault of ours.
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
ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb", "LANG=C.UTF-8")


class UnreachableError(Exception):
    """An archive cannot be reached, so a machine cannot be made."""


class Maker:
    """Makes roots, once each, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # This machine's way of reaching its mirror holds in the roots too.
        self._options = folder / "apt.conf"
        wanted = re.compile(r"Acquire::(Check-Valid-Until|Max-ValidTime|Retries|http|https|ftp)\b")
        told = _told("apt-config", "dump").splitlines(keepends=True)
        self._options.write_text("".join(line for line in told if wanted.match(line)))
        self._mirror = _told("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()[0]

    def base(self, system: str) -> Path:
        """Give the root of a distribution, as new.

        Raises:
            UnreachableError: its archive cannot be reached. So do the others.

        """
        least = "--variant=minbase"
        if system.startswith("ubuntu"):
            # There apt does not belong to the least by itself.
            made = self._of_ubuntu(system, least, f"--include={INCLUDED},apt,ubuntu-keyring")
        else:
            made = self._made(system, SUITES[system], least, f"--include={INCLUDED}", mirror=self._mirror)
        for sources in (made / "etc/apt").rglob("*.list"):
            # The keyring that mmdebstrap was given lies outside; the root has its own.
            sources.write_text(re.sub(r"\[[^]]*\] ", "", sources.read_text()))
        # As whatever installs a machine writes it.
        (made / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n")
        return made

    def asterisk_20(self) -> Path:
        """Give Ubuntu's Asterisk 20, unpacked."""
        return self._of_ubuntu("asterisk-20", "--variant=extract", "--include=asterisk")

    def chromium(self) -> Path:
        """Give Debian's Chromium, unpacked, for Ubuntu, which has one as a snap only."""
        package = "--include=chromium-headless-shell"
        return self._made("chromium", "bookworm", "--variant=extract", package, mirror=self._mirror)

    def _of_ubuntu(self, name: str, *options: str) -> Path:
        keys = self._made(
            "keys", "trixie", "--variant=extract", "--include=ubuntu-archive-keyring", mirror=self._mirror
        )
        ring = keys / "usr/share/keyrings/ubuntu-archive-keyring.gpg"
        # mmdebstrap knows where the archive is.
        return self._made(name, "noble", f"--keyring={ring}", "--components=main,universe", *options)

    def _made(self, name: str, suite: str, *options: str, mirror: str = "") -> Path:
        made, part = self.folder / name, self.folder / f"{name}.part"
        if not made.exists():
            shutil.rmtree(part, ignore_errors=True)
            command = ["mmdebstrap", f"--aptopt={self._options}", "--skip=output/mknod", "--quiet", *options]
            command += [suite, str(part), *([mirror] if mirror else [])]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                faults = [line for line in done.stderr.splitlines() if line.startswith("E:")]
                raise UnreachableError(f"{name} cannot be made: {faults[0] if faults else 'no reason given'}")
            part.rename(made)
        return made


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Machine:
    """One fresh machine, its newcomer (``root``, or a user with sudo), and the checkout in their home."""

    def __init__(self, root: Path, user: str, log: Path) -> None:
        self.root = root
        self.user = user
        self._log = log
        self.home = "/root" if user == "root" else f"/home/{user}"
        self.checkout = f"{self.home}/idbellen"

    def type(self, text: str, *, user: str = "", seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
        """Let the newcomer, or another user, type something; gives the exit code, and what was printed.

        Whatever it started and left ends with it; it is ended itself after so many seconds, with -1.
        """
        who = user or self.user
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter", str(self.root)]
        command += ["env", "-i", *ENVIRONMENT, f"HOME={self.home}"]
        if who != "root":
            command += ["setpriv", f"--reuid={who}", f"--regid={who}", "--init-groups"]
        with self._log.open("a") as log:
            log.write(f"\n$ {text}\n")
            log.flush()
            begin = self._log.stat().st_size
            try:
                code = subprocess.run(
                    [*command, "sh", "-c", text], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
                    timeout=seconds, start_new_session=True,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = -1
        with self._log.open(errors="replace") as said:
            said.seek(begin)
            return code, said.read()

    def insist(self, text: str) -> None:
        """Let root type what has to work."""
        code, said = self.type(text, user="root")
        if code:
            raise RuntimeError(f"{text}: {said[-500:]}")

    def settle_in(self) -> None:
        """Bring what this machine shares, the newcomer, and the checkout."""
        for shared in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
            if Path(shared).exists():
                shutil.copy(shared, f"{self.root}{shared}")
        if self.user != "root":
            self.insist(f"useradd --create-home --shell /bin/bash {self.user}")
            (self.root / "etc/sudoers.d" / self.user).write_text(f"{self.user} ALL=(ALL) NOPASSWD: ALL\n")
        clone = f"{self.root}{self.checkout}"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), clone], check=True)
        self.insist(f"chown -R {self.user}: {self.checkout}")

    def install_asterisk(self, maker: Maker) -> None:
        """Put an Asterisk 20 there, as the machine's own."""
        if (self.root / "etc/os-release").read_text().find("ubuntu") >= 0:
            install = "apt-get -q update && apt-get -qy install --no-install-recommends asterisk"
            self.insist(f"export DEBIAN_FRONTEND=noninteractive; {install}")
            return
        # Debian has no such package, so Ubuntu's comes with the loader and the libraries that it was built for.
        tree = self._put("opt/asterisk-20", maker.asterisk_20())
        [modules] = tree.glob("usr/lib/*/asterisk/modules")
        libraries = modules.parent.parent
        (self.root / "usr/lib/asterisk").mkdir(parents=True)
        (self.root / "usr/lib/asterisk/modules").symlink_to(self._inside(modules))
        (self.root / "usr/share/asterisk").symlink_to(self._inside(tree / "usr/share/asterisk"))
        loader = next(libraries.glob("ld-linux-*.so.*"))
        self._write_program(
            "usr/sbin/asterisk",
            f"{self._inside(loader)} --argv0 asterisk --library-path {self._inside(libraries)} "
            f"{self._inside(tree / 'usr/sbin/asterisk')}",
        )

    def install_chromium(self, maker: Maker) -> None:
        """Put Debian's Chromium on an Ubuntu machine."""
        tree = self._put("opt/chromium", maker.chromium())
        libraries = next(tree.glob("usr/lib/*-linux-gnu"))
        own = next((self.root / "usr/lib").glob("*-linux-gnu"))
        # The machine's own libraries are the newer ones, and its C library has to be taken.
        for library in libraries.glob("*.so*"):
            if (own / library.name).exists():
                library.unlink()
        (self.root / "etc/fonts").symlink_to("/opt/chromium/etc/fonts")
        (self.root / "usr/share/fonts").symlink_to("/opt/chromium/usr/share/fonts")
        program = self._inside(tree / "usr/lib/chromium/chromium-headless-shell")
        self._write_program(
            "usr/bin/chromium-headless-shell", f"env LD_LIBRARY_PATH={self._inside(libraries)} {program}"
        )

    def _put(self, place: str, tree: Path) -> Path:
        subprocess.run(["cp", "-a", str(tree), str(self.root / place)], check=True)
        return self.root / place

    def _inside(self, path: Path) -> str:
        return f"/{path.relative_to(self.root)}"

    def _write_program(self, place: str, command: str) -> None:
        program = self.root / place
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)


@contextmanager
def fresh(maker: Maker, system: str, user: str, log: Path) -> Iterator[Machine]:
    """Give a fresh machine, which is thrown away at the end."""
    base = maker.base(system)
    folder = Path(tempfile.mkdtemp(prefix="machine-", dir=maker.folder))
    upper, work, root = folder / "upper", folder / "work", folder / "root"
    for part in (upper, work, root):
        part.mkdir()
    options = f"lowerdir={base},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    try:
        machine = Machine(root, user, log)
        machine.settle_in()
        yield machine
    finally:
        subprocess.run(["umount", str(root)], check=True)
        shutil.rmtree(folder)
