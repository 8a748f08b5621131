"""Commands as root on an installation of another user: they look with its eyes and leave no file of root's."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from idbellen.service import privileges
from idbellen.service.privileges import User, become, other_readers, service_user
from tests.asterisk.test_disk import waiting
from tests.support.installation import PASSWORD, Installation, make_keys, run_cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idbellen.demo.pbx import Pbx

# Of nobody on this machine, as a user of a container often is.
SERVICE = User(64321, 64322)
NOBODY_ELSE = 64323
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: what it does is tested here")


def own(path: Path, uid: int = 0, gid: int = SERVICE.gid, mode: int = 0o640) -> None:
    os.chown(path, uid, gid)
    path.chmod(mode)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that other users can reach, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="idbellen-root-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def install(folder: Path, pbx: Pbx) -> Installation:
    """Install in /etc's and /var/lib's manner: configuration and keys are root's, the folder of the store is not."""
    installation = Installation(folder / "etc", pbx)
    keys = make_keys(folder / "keys")
    (folder / "var").mkdir()
    installation.write(keys, sessions__store=f'"{folder}/var/idbellen.db"')
    own(folder / "var", SERVICE.uid, mode=0o700)
    for file in (installation.config, installation.folder / "ari-password", *keys.glob("*/*")):
        own(file)
    return installation


@pytest.fixture
def installation(folder: Path) -> Installation:
    """Give an installation without an Asterisk."""
    return install(folder, cast("Pbx", SimpleNamespace(settings=SimpleNamespace(ari_port=1, ari_password="password"))))


def owners(folder: Path) -> set[tuple[int, int]]:
    found = [path.stat() for path in (folder, *folder.iterdir())]
    return {(status.st_uid, status.st_gid) for status in found}


# Who it is


def test_the_service_is_whom_the_folder_of_the_store_belongs_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = pwd.getpwuid(os.getuid())
    owner = SimpleNamespace(st_uid=SERVICE.uid, st_gid=SERVICE.gid)
    configured, unit = folder / "idbellen.toml", privileges.FOLDER / "idbellen.toml"

    def know(**users: User) -> None:
        def named(name: str) -> SimpleNamespace:
            user = users[name]
            return SimpleNamespace(pw_name=name, pw_uid=user.uid, pw_gid=user.gid)

        monkeypatch.setattr(pwd, "getpwnam", named)

    def whose(status: SimpleNamespace) -> Path:
        return cast("Path", SimpleNamespace(stat=lambda: status))

    know()
    assert service_user(configured, whose(owner)) == SERVICE
    assert service_user(unit, whose(owner)) == SERVICE
    mine = SimpleNamespace(st_uid=me.pw_uid or 1, st_gid=1)
    assert service_user(configured, whose(mine)) == User(
        mine.st_uid, pwd.getpwuid(mine.st_uid).pw_gid, pwd.getpwuid(mine.st_uid).pw_name
    )
    roots = SimpleNamespace(st_uid=0, st_gid=0)
    for elsewhere in (None, folder / "not there", whose(roots), Path("\0")):
        assert service_user(configured, elsewhere) is None
        assert service_user(unit, elsewhere) is None
    know(idbellen=SERVICE)
    for elsewhere in (None, folder / "not there", whose(roots), Path("\0")):
        assert service_user(configured, elsewhere) is None, "nothing says that this is the unit's"
        assert service_user(unit, elsewhere) == User(SERVICE.uid, SERVICE.gid, "idbellen")


def test_root_lets_go_of_its_groups_first_and_of_itself_last(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[object, ...]] = []
    for name in ("initgroups", "setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda *values, name=name: done.append((name, *values)))
    become(SERVICE)
    assert done == [("setgroups", [SERVICE.gid]), ("setgid", SERVICE.gid), ("setuid", SERVICE.uid)]
    done.clear()
    become(User(1, 2, "idbellen"))
    assert done == [("initgroups", "idbellen", 2), ("setgid", 2), ("setuid", 1)]

    def refused(_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refused)
    with pytest.raises(
        privileges.PrivilegeError, match=r"^root may not become user 64321, .*: Operation not permitted;"
    ):
        become(SERVICE)


# Who can read a secret


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "told"),
    [
        (0, SERVICE.gid, 0o640, ""),
        (0, 0, 0o640, ""),
        (SERVICE.uid, SERVICE.gid, 0o600, ""),
        (SERVICE.uid, NOBODY_ELSE, 0o600, ""),
        (0, SERVICE.gid, 0o644, "readable for others"),
        (0, SERVICE.gid, 0o641, "readable for others"),
        (0, NOBODY_ELSE, 0o640, "readable for group 64323"),
        (NOBODY_ELSE, SERVICE.gid, 0o640, "belongs to another user, 64323"),
    ],
)
def test_who_can_read_a_secret_is_known(
    monkeypatch: pytest.MonkeyPatch, uid: int, gid: int, mode: int, told: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: SERVICE.uid)
    monkeypatch.setattr(os, "getegid", lambda: SERVICE.gid)
    status = SimpleNamespace(st_uid=uid, st_gid=gid, st_mode=0o100000 | mode)
    assert other_readers(cast("Path", SimpleNamespace(stat=lambda: status))) == told


def test_who_else_is_in_the_services_group_can_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    everybody = [
        SimpleNamespace(pw_name="root", pw_uid=0, pw_gid=SERVICE.gid),
        SimpleNamespace(pw_name="idbellen", pw_uid=SERVICE.uid, pw_gid=SERVICE.gid),
        SimpleNamespace(pw_name="ann", pw_uid=NOBODY_ELSE, pw_gid=SERVICE.gid),
    ]
    group = SimpleNamespace(gr_name="idbellen", gr_mem=["www-data", "idbellen"])
    monkeypatch.setattr(os, "geteuid", lambda: SERVICE.uid)
    monkeypatch.setattr(os, "getegid", lambda: SERVICE.gid)
    monkeypatch.setattr(pwd, "getpwall", lambda: everybody)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {user.pw_uid: user for user in everybody}[uid])
    monkeypatch.setattr(grp, "getgrgid", {SERVICE.gid: group}.__getitem__)
    status = SimpleNamespace(st_uid=0, st_gid=SERVICE.gid, st_mode=0o100640)
    told = other_readers(cast("Path", SimpleNamespace(stat=lambda: status)))
    assert told == "readable for ann, www-data, in group idbellen"


# As root


@as_root
async def test_check_as_root_sees_what_the_service_sees(installation: Installation, folder: Path) -> None:
    async def check() -> str:
        return (await run_cli("check", "--config", str(installation.config)))[1]

    output = await check()
    assert output.startswith(f"ok    user: looks as {SERVICE.uid}, as which the service runs\nok    configuration\n")
    assert [line for line in output.splitlines() if line.startswith("FAULT ") and "ARI:" not in line] == [
        "FAULT agents: no agent yet: idbellen agent add NAME --endpoint PJSIP/..."
    ]
    master_key = folder / "keys/own-rsa/master-key"
    own(master_key, gid=0, mode=0o600)
    assert f"FAULT master key: {master_key}: Permission denied\n" in await check()
    own(master_key)
    own(folder / "var", mode=0o750)
    own(folder / "var/idbellen.db", SERVICE.uid, mode=0o600)
    # Root's folder says nothing of the service, so now it is root that looks.
    assert "ok    user" not in await check()
    own(folder / "var", SERVICE.uid, mode=0o500)
    assert f"FAULT store: store {folder}/var/idbellen.db: " in await check()
    own(installation.config, gid=0, mode=0o600)
    assert await check() == (
        f"ok    user: looks as {SERVICE.uid}, as which the service runs\n"
        f"FAULT configuration: {installation.config}: Permission denied\n"
    )
    code, output = await run_cli("agent", "list", "--config", str(installation.config))
    assert (code, output) == (1, f"idbellen: {installation.config}: Permission denied for user {SERVICE.uid}\n")


@as_root
async def test_no_command_leaves_a_file_of_roots(installation: Installation, folder: Path) -> None:
    config = ("--config", str(installation.config))
    add = ("agent", "add", "ann", "--endpoint", "PJSIP/ann", *config)
    assert await run_cli(*add, given=f"{PASSWORD}\n") == (0, "")
    for command in (
        ("check",),
        ("agent", "set", "ann", "--role", "supervisor"),
        ("agent", "list"),
        ("audit", "show"),
        ("audit", "verify"),
        ("keys", "check"),
        ("send-away",),
        ("agent", "remove", "ann"),
    ):
        _, output = await run_cli(*command, *config)
        assert "Traceback" not in output
        assert owners(folder / "var") == {(SERVICE.uid, SERVICE.gid)}
    assert {path.name for path in (folder / "var").iterdir()} == {"idbellen.db", "idbellen.db.lock"}
    # Whoever did it is on record all the same.
    _, output = await run_cli("audit", "show", *config)
    assert f"\tshell:{os.environ.get('SUDO_USER') or 'root'}\tagent added\tann" in output


@as_root
async def test_the_service_that_root_starts_is_the_services_users(installation: Installation, folder: Path) -> None:
    # It need go no further than to the store; what comes later it may not be able to load as another user.
    async with waiting(installation):
        assert installation.process
        status = (await asyncio.to_thread(Path(f"/proc/{installation.process.pid}/status").read_text)).splitlines()
        assert await installation.stop() == 0
    ids = {line.split(":")[0]: line.split()[1:] for line in status if line.startswith(("Uid", "Gid", "Groups"))}
    assert ids == {"Uid": [str(SERVICE.uid)] * 4, "Gid": [str(SERVICE.gid)] * 4, "Groups": [str(SERVICE.gid)]}
    assert owners(folder / "var") == {(SERVICE.uid, SERVICE.gid)}
    assert (folder / "var/idbellen.db.lock").exists()
    assert f"serves as the service's user user={SERVICE.uid}" in installation.log.read_text()


@as_root
async def test_root_makes_keys_that_the_service_can_read(folder: Path) -> None:
    keys = folder / "keys"
    keys.mkdir()
    own(keys, SERVICE.uid, mode=0o750)
    code, output = await run_cli("keys", "generate", str(keys), "--kind", "ec")
    assert code == 0
    assert f"keep the others secret: user {SERVICE.uid} can read them, with its group" in output
    modes = {
        path.name: (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) for path in keys.iterdir()
    }
    assert modes == {
        "master-key": (0, SERVICE.gid, 0o640),
        "decryption-key.pem": (0, SERVICE.gid, 0o640),
        "encryption-key.pub.pem": (0, SERVICE.gid, 0o644),
    }
    reading = await asyncio.create_subprocess_exec(
        "cat", keys / "master-key", user=SERVICE.uid, group=SERVICE.gid, extra_groups=[], stdout=subprocess.DEVNULL
    )
    assert await reading.wait() == 0
    # So with the key of a plugin before, which only root could read.
    old = folder / "old.pem"
    old.write_bytes((keys / "decryption-key.pem").read_bytes())
    own(old, gid=0, mode=0o600)
    code, output = await run_cli("keys", "import", str(old), str(keys))
    assert (code, f"secret: user {SERVICE.uid} can read them, with its group" in output) == (0, True)
    imported = (keys / "decryption-key-imported.pem").stat()
    assert (imported.st_uid, imported.st_gid, imported.st_mode & 0o777) == (0, SERVICE.gid, 0o640)
    # Of a folder that is root's nothing tells whose the service is.
    code, _ = await run_cli("keys", "generate", str(folder / "new"), "--kind", "ec")
    assert code == 0
    assert owners(folder / "new") == {(0, 0)}
    assert (folder / "new/master-key").stat().st_mode & 0o777 == 0o600
