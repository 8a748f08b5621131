"""The ``idbellen`` command as an operator types it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from idbellen.demo.pbx import CHECKOUT
from idbellen.domain.idcontact import load_key
from tests.support.installation import PASSWORD, Installation, run_cli

if TYPE_CHECKING:
    from idbellen.demo.pbx import Pbx


async def test_check_is_content_with_a_good_installation(installation: Installation) -> None:
    code, output = await run_cli("check", "--config", str(installation.config))
    assert "FAULT" not in output
    assert code == 0
    for what in ("configuration", "master key", "store", "agents", "ARI", "modules", "prompts", "dialplan"):
        assert f"ok    {what}\n" in output


async def check_fault(installation: Installation, told: str) -> None:
    code, output = await run_cli("check", "--config", str(installation.config))
    assert told in output
    assert code == 1


def replace(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


async def test_check_tells_each_fault(pbx: Pbx, keys_folder: Path, tmp_path: Path) -> None:
    own_keys = tmp_path / "keys"
    shutil.copytree(keys_folder, own_keys)
    installation = Installation(tmp_path / "i", pbx)
    installation.write(own_keys)
    config = installation.config
    await check_fault(installation, "no agent yet: idbellen agent add")

    replace(config, "report_move", "Report Move")
    await check_fault(installation, "not TOML")
    installation.write(own_keys)

    with config.open("a") as file:
        file.write('[supervisors]\napi_token_file = "wallboard-token"\n')
    await check_fault(installation, "wallboard-token: No such file or directory")
    installation.write(own_keys)

    (installation.folder / "ari-password").write_text("wrong")
    await check_fault(installation, "Asterisk refuses user 'idbellen' or the password")
    (installation.folder / "ari-password").unlink()
    await check_fault(installation, "ari-password: No such file or directory")
    installation.write(own_keys)

    replace(config, f":{pbx.settings.ari_port}/", ":1/")
    await check_fault(installation, "FAULT ARI: GET /asterisk/info: Cannot connect")
    installation.write(own_keys)

    replace(config, "[calls]", '[calls]\nlanguage = "en"')
    (code, output) = await run_cli("check", "--config", str(config))
    assert "FAULT prompts" not in output, "both languages are installed"
    installation.write(own_keys)

    replace(config, 'password_file = "ari', 'app = "other"\npassword_file = "ari')
    await check_fault(installation, "IDBELLEN_APP is 'idbellen' in Asterisk, but [asterisk] app is 'other'")
    installation.write(own_keys)

    (own_keys / "own-rsa/master-key").chmod(0o644)
    await check_fault(installation, "readable for others; chmod 600")
    (own_keys / "own-rsa/decryption-key.pem").write_text("no key")
    await check_fault(installation, "decryption-key.pem: neither an RSA nor an EC key in PEM")
    (own_keys / "own-rsa/master-key").write_text("short")
    await check_fault(installation, "at least 32 characters")
    assert code == 1


async def test_check_names_a_missing_prompt(pbx: Pbx, installation: Installation) -> None:
    prompt = pbx.settings.directory / "data/sounds/nl/idbellen/welcome.wav"
    text = prompt.read_bytes()
    prompt.unlink()
    try:
        await pbx.cli("module reload sounds")
        await check_fault(installation, "missing in language nl: welcome;")
    finally:
        prompt.write_bytes(text)
        await pbx.cli("module reload sounds")


async def test_check_names_a_missing_module(pbx: Pbx, installation: Installation) -> None:
    await pbx.cli("module unload res_ari_playbacks.so")
    try:
        await check_fault(installation, "not loaded in Asterisk: res_ari_playbacks.so")
    finally:
        await pbx.cli("module load res_ari_playbacks.so")


async def test_keys_check_tells_kind_and_thumbprint_of_each_key(pbx: Pbx, keys_folder: Path, tmp_path: Path) -> None:
    installation = Installation(tmp_path / "i", pbx)
    own_keys = tmp_path / "keys"
    shutil.copytree(keys_folder, own_keys)
    installation.write(own_keys)
    config = installation.config

    async def keys_check() -> tuple[int, str]:
        return await run_cli("keys", "check", "--config", str(config))

    code, output = await keys_check()
    thumbprint = load_key((own_keys / "own-ec/encryption-key.pub.pem").read_bytes()).thumbprint()
    assert f"ok    decryption key decryption-key.pem: EC P-256, thumbprint {thumbprint}\n" in output
    assert "ok    verification key encryption-key.pub.pem: RSA 2048, thumbprint" in output
    assert (code, output.count("ok "), output.count("\n")) == (0, 5, 5)

    replace(config, "auth-rsa/encryption-key.pub.pem", "auth-rsa/decryption-key.pem")
    code, output = await keys_check()
    assert (code, "a private key; an auth plugin keeps that" in output) == (1, True)
    installation.write(own_keys)
    replace(config, "own-rsa/decryption-key.pem", "own-rsa/encryption-key.pub.pem")
    assert "expected a private key" in (await keys_check())[1]
    installation.write(own_keys)
    replace(config, "own-rsa/decryption-key.pem", "auth-rsa/decryption-key.pem")
    assert "auth-rsa/encryption-key.pub.pem: the same key as" in (await keys_check())[1]


@pytest.fixture
def config(keys_folder: Path, tmp_path: Path) -> tuple[str, str]:
    """Give the options that name a configuration with two more queues, without an Asterisk."""
    no_pbx = SimpleNamespace(settings=SimpleNamespace(ari_port=1, ari_password="password"))
    installation = Installation(tmp_path / "i", cast("Pbx", no_pbx))
    installation.write(keys_folder, more="[queues.moves]\n[queues.taxes]")
    return "--config", str(installation.config)


async def test_agents(config: tuple[str, str]) -> None:
    async def add(name: str, endpoint: str, password: str, *more: str) -> tuple[int, str]:
        return await run_cli("agent", "add", name, "--endpoint", endpoint, *more, *config, given=f"{password}\n")

    assert await add("ann", "PJSIP/ann", PASSWORD) == (0, "")
    assert "already" in (await add("ann", "PJSIP/ann", PASSWORD))[1]
    assert "at least 12 characters" in (await add("bob", "PJSIP/bob", "short"))[1]
    assert "letters, digits" in (await add("b ob", "PJSIP/bob", PASSWORD))[1]
    assert "expected --endpoint" in (await add("bob", "bob", PASSWORD))[1]
    queues = ("--queue", "moves:1", "--queue", "default")
    assert await add("bob", "PJSIP/bob", PASSWORD, "--role", "supervisor", *queues) == (0, "")
    code, output = await run_cli("agent", "list", *config)
    assert (code, output.splitlines()) == (
        0,
        ["ann\tPJSIP/ann\tagent\tall queues", "bob\tPJSIP/bob\tsupervisor\tmoves:1 default:0"],
    )
    assert (await run_cli("agent", "remove", "ann", *config))[0] == 0
    assert "there is no agent 'ann'" in (await run_cli("agent", "remove", "ann", *config))[1]


async def test_what_is_given_of_an_agent_is_changed(config: tuple[str, str]) -> None:
    async def change(*more: str, given: str = "") -> tuple[int, str]:
        return await run_cli("agent", "set", "ann", *more, *config, given=given)

    async def listed() -> str:
        return (await run_cli("agent", "list", *config))[1]

    assert await change("--role", "agent") == (1, "idbellen: agent set: there is no agent 'ann'\n")
    await run_cli("agent", "add", "ann", "--endpoint", "PJSIP/ann", *config, given=f"{PASSWORD}\n")
    assert await change("--endpoint", "PJSIP/desk2", "--role", "supervisor", "--queue", "taxes:2") == (0, "")
    assert await listed() == "ann\tPJSIP/desk2\tsupervisor\ttaxes:2\n"
    assert await change("--all-queues", "--password", given="another long password\n") == (0, "")
    assert await listed() == "ann\tPJSIP/desk2\tsupervisor\tall queues\n"

    for wrong, told in (
        ((), "give what to change"),
        (("--endpoint", "desk"), "expected --endpoint TECHNOLOGY/NAME"),
        (("--queue", "parks"), "there is no queue 'parks'; there are: default, moves, taxes"),
        (("--queue", "moves:first"), "expected --queue NAME or NAME:PENALTY"),
        (("--queue", "moves", "--queue", "moves:1"), "queue 'moves' is given twice"),
        (("--password",), "at least 12 characters"),
    ):
        code, output = await change(*wrong)
        assert (code, output.count("\n")) == (1, 1)
        assert told in output
    assert (await change("--queue", "moves", "--all-queues"))[0] == 2
    assert (await change("--role", "mayor"))[0] == 2


async def test_the_audit_trail_is_shown_and_verified(config: tuple[str, str]) -> None:
    async def audit(*arguments: str) -> tuple[int, str]:
        return await run_cli("audit", *arguments, *config)

    assert await audit("verify") == (0, "ok    audit trail: no entries\n")
    await run_cli("agent", "add", "ann", "--endpoint", "PJSIP/ann", *config, given=f"{PASSWORD}\n")
    await run_cli("agent", "set", "ann", "--queue", "taxes:2", "--password", *config, given=f"{PASSWORD}\n")
    await run_cli("agent", "remove", "ann", *config)
    code, output = await audit("verify")
    assert code == 0
    assert "entries 1 to 3 are as they were written" in output

    code, output = await audit("show")
    rows = [line.split("\t") for line in output.splitlines()]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("1", "agent added", "ann"), ("2", "agent changed", "ann"), ("3", "agent removed", "ann"),
    ]  # fmt: skip
    assert rows[0][2].startswith("shell:")
    assert rows[0][5] == '{"endpoint": "PJSIP/ann", "role": "agent", "queues": "all queues"}'
    assert rows[1][5] == '{"queues": "taxes:2", "password": "changed"}'
    assert await audit("show", "--since", "2999-01-01") == (0, "")
    assert (await audit("show", "--since", "2020-01-01"))[1] == output
    assert "expected --since YEAR-MONTH-DAY" in (await audit("show", "--since", "today"))[1]

    with closing(sqlite3.connect(Path(config[1]).parent / "idbellen.db")) as writer:
        writer.execute("UPDATE audit SET subject = ? WHERE sequence = 2", ("b\x1b[2Job",))
        writer.commit()
    code, output = await audit("verify")
    assert (code, output.startswith("FAULT audit trail: entry 2: changed")) == (1, True)
    assert "\tb\\x1b[2Job\t" in (await audit("show"))[1]


@pytest.mark.parametrize("kind", ["rsa", "ec"])
async def test_keys_are_made_once(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "keys"
    code, output = await run_cli("keys", "generate", str(folder), "--kind", kind)
    assert code == 0
    assert "encryption-key.pub.pem to the auth plugins" in output
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {"master-key": 0o600, "decryption-key.pem": 0o600, "encryption-key.pub.pem": 0o644}
    assert load_key((folder / "decryption-key.pem").read_bytes()).key_type == kind.upper()
    code, output = await run_cli("keys", "generate", str(folder))
    assert (code, "nothing is overwritten" in output) == (1, True)


async def test_the_key_of_the_plugin_before_is_taken_over(tmp_path: Path, keys_folder: Path) -> None:
    old, folder = tmp_path / "old.yml", tmp_path / "keys"
    pem = (keys_folder / "own-rsa/decryption-key.pem").read_text()
    old.write_text("decryption_privkey:\n  type: RSA\n  key: |\n" + textwrap.indent(pem, "    "))
    assert (await run_cli("keys", "generate", str(folder), "--kind", "ec"))[0] == 0
    code, output = await run_cli("keys", "import", str(old), str(folder))
    assert code == 0
    made = folder / "decryption-key-imported.pem"
    assert output.startswith(f"{made}\n{folder}/encryption-key-imported.pub.pem\nTaken over: RSA 2048, thumbprint ")
    assert load_key(pem.encode()).thumbprint() in output
    # The line can be put into the configuration as it is.
    assert output.endswith(f'[idcontact]\ndecryption_key_files = ["{folder}/decryption-key.pem", "{made}"]\n')
    assert made.stat().st_mode & 0o777 == 0o600
    assert load_key(made.read_bytes()).as_pem(private=True) == load_key(pem.encode()).as_pem(private=True)
    code, output = await run_cli("keys", "import", str(old), str(folder))
    assert (code, output) == (1, f"idbellen: {made}: is there already, and nothing is overwritten\n")
    code, output = await run_cli("keys", "import", str(tmp_path / "nowhere.pem"), str(folder))
    assert (code, output) == (1, f"idbellen: {tmp_path}/nowhere.pem: No such file or directory\n")
    public = keys_folder / "own-rsa/encryption-key.pub.pem"
    code, output = await run_cli("keys", "import", str(public), str(tmp_path / "new"))
    assert (code, output.count("\n"), (tmp_path / "new").exists()) == (1, 1, False)
    assert f"keys import: {public}: a public key: expected the private one" in output
    code, output = await run_cli("keys", "import", str(old), str(tmp_path / "new"))
    assert output.endswith(f'decryption_key_files = ["{tmp_path}/new/decryption-key-imported.pem"]\n')


async def test_an_encrypted_key_is_taken_over_with_its_passphrase(tmp_path: Path, keys_folder: Path) -> None:
    locked = tmp_path / "locked.pem"
    key = load_key((keys_folder / "own-rsa/decryption-key.pem").read_bytes())
    locked.write_bytes(key.as_pem(private=True, password="a passphrase"))
    (tmp_path / "passphrase").write_text("a passphrase\n")
    command = ("keys", "import", str(locked))
    code, output = await run_cli(*command, str(tmp_path / "none"), given="")
    assert (code, "encrypted with a passphrase: --passphrase-file gives it" in output) == (1, True)
    code, output = await run_cli(*command, str(tmp_path / "wrong"), given="another\n")
    assert (code, "its passphrase is another" in output) == (1, True)
    assert (await run_cli(*command, str(tmp_path / "typed"), given="a passphrase\n"))[0] == 0
    filed = ("--passphrase-file", str(tmp_path / "passphrase"))
    assert (await run_cli(*command, str(tmp_path / "filed"), *filed))[0] == 0
    for folder in ("typed", "filed"):
        made = load_key((tmp_path / folder / "decryption-key-imported.pem").read_bytes())
        assert made.thumbprint() == key.thumbprint()
    for folder in ("none", "wrong"):
        assert not (tmp_path / folder).exists()


@pytest.mark.parametrize(
    ("typed", "told"), [("a passphrase\n", "Taken over: RSA 2048"), ("\4", "idbellen: nothing was typed\n")]
)
async def test_the_passphrase_is_asked_for_at_a_terminal(
    tmp_path: Path, keys_folder: Path, typed: str, told: str
) -> None:
    locked = tmp_path / "locked.pem"
    key = load_key((keys_folder / "own-rsa/decryption-key.pem").read_bytes())
    locked.write_bytes(key.as_pem(private=True, password="a passphrase"))
    master, slave = os.openpty()
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "idbellen", "keys", "import", str(locked), str(tmp_path / "keys"),
        stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        assert command.stdout
        asked = await asyncio.wait_for(command.stdout.readuntil(b"Passphrase of the key: "), 20)
        os.write(master, typed.encode())
        output = asked + await asyncio.wait_for(command.stdout.read(), 20)
    finally:
        os.close(master)
        await command.wait()
    assert told in output.decode()
    assert b"Traceback" not in output
    assert b"a passphrase" not in output


async def test_serve_tells_in_one_line_why_it_cannot_start(installation: Installation) -> None:
    code, output = await run_cli("serve", "--config", str(installation.config))
    assert (code, output.count("\n")) == (1, 1)
    assert "another idbellen serves with it: stop that one" in output
    config = installation.config.read_text()
    other = installation.folder / "other.toml"
    other.write_text(config.replace('store = "idbellen.db"', 'store = "other.db"'))
    code, output = await run_cli("serve", "--config", str(other))
    assert (code, output.count("\n")) == (1, 1)
    assert "[idcontact] listen" in output
    assert "cannot be listened on" in output
    code, output = await run_cli("serve", "--config", "/nowhere.toml")
    assert (code, output) == (1, "idbellen: /nowhere.toml: No such file or directory\n")


async def test_the_unit_file_is_sound() -> None:
    unit = CHECKOUT / "systemd/idbellen.service"
    process = await asyncio.create_subprocess_exec(
        "systemd-analyze", "verify", "--man=no", str(unit), stderr=asyncio.subprocess.PIPE
    )
    _, output = await process.communicate()
    # The command itself is not installed here.
    faults = [line for line in output.decode().splitlines() if "is not executable" not in line]
    assert faults == []
    # It is started again for ever.
    assert "StartLimitIntervalSec=0" in unit.read_text().split("[Unit]")[1].split("[Service]")[0].splitlines()
