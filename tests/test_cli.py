"""The ``idbellen`` command as an operator types it."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from idbellen.demo.pbx import CHECKOUT
from idbellen.domain.idcontact import load_key
from tests.installation import Installation, run_cli

if TYPE_CHECKING:
    from pathlib import Path

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


async def test_keys_check_tells_kind_and_thumbprint_of_each_key(
    pbx: Pbx, keys_folder: Path, tmp_path: Path
) -> None:
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
    assert "ok    verification key encryption-key.pub.pem: RSA 3072, thumbprint" in output
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


async def test_agents(installation: Installation) -> None:
    config = ("--config", str(installation.config))

    async def add(name: str, endpoint: str, password: str) -> tuple[int, str]:
        return await run_cli("agent", "add", name, "--endpoint", endpoint, *config, given=f"{password}\n")

    assert await add("ann", "PJSIP/ann", "a long enough password") == (0, "")
    assert "already" in (await add("ann", "PJSIP/ann", "a long enough password"))[1]
    assert "at least 12 characters" in (await add("bob", "PJSIP/bob", "short"))[1]
    assert "letters, digits" in (await add("b ob", "PJSIP/bob", "a long enough password"))[1]
    assert "expected --endpoint" in (await add("bob", "bob", "a long enough password"))[1]
    code, output = await run_cli("agent", "list", *config)
    assert (code, output.splitlines()[-1]) == (0, "ann\tPJSIP/ann")
    assert (await run_cli("agent", "remove", "ann", *config))[0] == 0
    assert "there is no agent 'ann'" in (await run_cli("agent", "remove", "ann", *config))[1]


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


async def test_serve_tells_in_one_line_why_it_cannot_start(installation: Installation) -> None:
    code, output = await run_cli("serve", "--config", str(installation.config))
    assert code == 1
    assert "[idcontact] listen" in output
    assert "cannot be listened on" in output
    code, output = await run_cli("serve", "--config", "/nowhere.toml")
    assert (code, output) == (1, "idbellen: /nowhere.toml: No such file or directory\n")


async def test_a_second_instance_takes_over_and_the_first_says_so_and_ends(
    installation: Installation, keys_folder: Path, tmp_path: Path
) -> None:
    second = Installation(tmp_path / "second", installation.pbx)
    second.write(keys_folder)
    await second.start()
    assert installation.process
    async with asyncio.timeout(5):
        assert await installation.process.wait() == 1
    assert "another process took over the Stasis application 'idbellen'" in installation.log.read_text()
    assert await second.stop() == 0


async def test_the_unit_file_is_sound() -> None:
    unit = CHECKOUT / "systemd/idbellen.service"
    process = await asyncio.create_subprocess_exec(
        "systemd-analyze", "verify", "--man=no", str(unit), stderr=asyncio.subprocess.PIPE
    )
    _, output = await process.communicate()
    # The command itself is not installed here.
    faults = [line for line in output.decode().splitlines() if "is not executable" not in line]
    assert faults == []
