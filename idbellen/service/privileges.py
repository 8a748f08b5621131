"""As root, a command goes on as the user that the service runs as.

So what it looks at is what the service can read, and what it makes is the service's own.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

# The user of systemd/idbellen.service, and where that has its configuration.
USER = "idbellen"
FOLDER = Path("/etc/idbellen")
ROOT = 0


class PrivilegeError(Exception):
    """Root may not become the service's user; the message says which."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine, and the group that is its own. In a container it often has no name."""

    uid: int
    gid: int
    name: str = ""

    def __str__(self) -> str:
        """Give the name, or else the number."""
        return self.name or str(self.uid)


def service_user(file: Path, folder: Path | None) -> User | None:
    """Give the user that the service runs as, as far as root can know it; None: as root, as in many containers.

    It is whom ``folder`` belongs to, in which the service keeps its files. Where that says nothing, since the store is
    elsewhere or the folder is not there or root's, it is the unit's user, for a ``file`` in the unit's configuration.
    """
    try:
        found = folder.stat() if folder else None
    except (OSError, ValueError):
        found = None
    if found and found.st_uid != ROOT:
        try:
            named = pwd.getpwuid(found.st_uid)
        except KeyError:
            return User(found.st_uid, found.st_gid)
        return User(named.pw_uid, named.pw_gid, named.pw_name)
    if file.absolute().is_relative_to(FOLDER):
        try:
            own = pwd.getpwnam(USER)
        except KeyError:
            return None
        return User(own.pw_uid, own.pw_gid, own.pw_name)
    return None


def become(user: User) -> None:
    """Be that user from now on, with its groups and no others.

    Raises:
        PrivilegeError: root may not, as in a container without that capability.

    """
    try:
        if user.name:
            os.initgroups(user.name, user.gid)
        else:
            os.setgroups([user.gid])
        os.setgid(user.gid)
        os.setuid(user.uid)
    except OSError as fault:
        raise PrivilegeError(
            f"root may not become user {user}, as which the service runs: {fault.strerror}; start this as {user}"
        ) from None


def other_readers(path: Path) -> str:
    """Say who can read a file besides root, the user that we are and the group of its own; empty: nobody.

    Raises:
        OSError: the file cannot be looked at.

    """
    found, uid, gid = path.stat(), os.geteuid(), os.getegid()
    if found.st_mode & 0o007:
        return "readable for others"
    if found.st_mode & 0o070 and found.st_gid not in (ROOT, gid):
        return f"readable for group {_group(found.st_gid)}"
    if found.st_mode & 0o070 and found.st_gid == gid and (members := _members_beside(uid, gid)):
        return f"readable for {', '.join(members)}, in group {_group(gid)}"
    # In a container root's files often belong to whoever started it.
    if uid != ROOT and found.st_uid not in (ROOT, uid):
        return f"belongs to another user, {_name(found.st_uid)}"
    return ""


def how_to_hide(path: Path) -> str:
    """Give the commands with which root lets nobody read a file but us."""
    uid, gid = os.geteuid(), os.getegid()
    if path.stat().st_uid == uid:
        return f"chmod 600 {path}"
    return f"chown root:{_group(gid)} {path} && chmod 640 {path}"


def _members_beside(uid: int, gid: int) -> list[str]:
    """Give who else is in a group, by a list of it or as their own."""
    try:
        listed = grp.getgrgid(gid).gr_mem
    except KeyError:
        listed = []
    own = [user.pw_name for user in pwd.getpwall() if user.pw_gid == gid]
    return sorted({*listed, *own} - {_name(uid), _name(ROOT)})


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
