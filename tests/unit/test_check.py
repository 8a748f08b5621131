"""``idbellen check`` says in a line what it cannot look at, whatever it meets, and goes on to the next."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp import web

from idbellen.domain.idcontact import load_key
from idbellen.domain.prompts import Prompt, media
from idbellen.keys import take_over
from idbellen.service import check as check_module
from idbellen.service.check import ABOUT_SOUNDS, NEEDED_BY_CARRIERS, NEEDED_MODULES, Finding, check
from tests.support.installation import PASSWORD, Installation, make_keys, run_cli
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from idbellen.demo.pbx import Pbx

# What an Asterisk answers that has all that is looked for.
INFO, MODULES, SOUNDS, VARIABLE = "/asterisk/info", "/asterisk/modules", "/sounds", "/asterisk/variable"
ENDPOINT = "/endpoints/PJSIP/to-west"
GOOD: dict[str, Any] = {
    INFO: {"system": {"version": "22.1.0"}},
    MODULES: [{"name": name} for name in (*NEEDED_MODULES, *NEEDED_BY_CARRIERS, ABOUT_SOUNDS)],
    SOUNDS: [{"id": media(prompt).removeprefix("sound:")} for prompt in Prompt],
    VARIABLE: {"value": "idbellen"},
    ENDPOINT: {"state": "online"},
}
WHAT = {INFO: "ARI", MODULES: "ARI", SOUNDS: "prompts", VARIABLE: "dialplan", ENDPOINT: "trunk to west"}
ODD: dict[str, Callable[[], web.Response]] = {
    "404": lambda: web.json_response({"message": "Resource not found"}, status=404),
    "500": lambda: web.Response(status=500, text="<h1>Internal Server Error</h1>", content_type="text/html"),
    "a page": lambda: web.Response(text="<h1>It works!</h1>", content_type="text/html"),
    "broken JSON": lambda: web.Response(body=b"[{\n\xff", content_type="application/json"),
    "null": lambda: web.json_response(None),
    "a number": lambda: web.json_response(22),
    "a list of nothing known": lambda: web.json_response([{}, None]),
    "an object of nothing known": lambda: web.json_response({"system": {"version": None}, "value": []}),
}


class FakeAri:
    """Answers as :data:`GOOD` says, but for paths with another answer. ``plain``: where its plain queue is."""

    def __init__(self) -> None:
        self.port = free_ports()
        self.other: dict[str, Callable[[], web.Response]] = {}
        self.plain = "plain,s,1"

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/ari").replace("to-main", "to-west")
        if path in self.other:
            return self.other[path]()
        if request.query.get("variable") == "IDBELLEN_PLAIN":
            return web.json_response({"value": self.plain})
        return web.json_response(GOOD[path])


@pytest.fixture
async def ari() -> AsyncIterator[FakeAri]:
    fake = FakeAri()
    app = web.Application()
    app.router.add_route("*", "/ari/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", fake.port).start()
    yield fake
    await runner.cleanup()


@pytest.fixture
async def installation(ari: FakeAri, keys_folder: Path, tmp_path: Path) -> Installation:
    """Give a good installation with two Asterisks, which are one."""
    pbx = SimpleNamespace(settings=SimpleNamespace(ari_port=ari.port, ari_password="password"))
    made = Installation(tmp_path / "i", cast("Pbx", pbx))
    west = f"""[asterisk.others.west]
url = "http://127.0.0.1:{ari.port}/ari"
password_file = "ari-password"
trunk = "to-west"
"""
    made.write(keys_folder, asterisk__trunk='"to-main"', more=west)
    await made.add_agents("ann")
    return made


async def faults(installation: Installation) -> list[Finding]:
    return [finding async for finding in check(installation.config) if finding.fault]


async def test_a_good_installation_has_no_faults(installation: Installation) -> None:
    assert await faults(installation) == []


async def told(installation: Installation, what: str) -> str:
    return "\n".join([finding.detail async for finding in check(installation.config) if finding.what == what])


async def test_session_feedback_that_is_never_sent_is_told(installation: Installation, keys_folder: Path) -> None:
    assert "never sent, since [feedback] allowed_hosts is empty" in await told(installation, "session feedback")
    installation.write(keys_folder, more='[feedback]\nallowed_hosts = ["auth.example", "irma.example:8443"]\n')
    assert await told(installation, "session feedback") == "goes to auth.example, irma.example:8443"


async def test_by_what_login_methods_are_known_is_told(installation: Installation, keys_folder: Path) -> None:
    assert await told(installation, "login methods") == ""
    labels = '{ nl = "DigiD", en = "DigiD" }'
    installation.write(keys_folder, more=f"[methods]\ndigid = {labels}\n")
    assert await told(installation, "login methods") == "agents see one when the auth result says so (iss): digid"


async def test_a_key_that_was_taken_over_and_is_not_used_is_told(
    installation: Installation, keys_folder: Path, tmp_path: Path
) -> None:
    own_keys = tmp_path / "keys"
    shutil.copytree(keys_folder, own_keys)
    installation.write(own_keys, asterisk__trunk='"to-main"')
    # That of another municipality's plugin.
    key = load_key(make_keys(tmp_path / "other").joinpath("own-rsa/decryption-key.pem").read_bytes())
    made, _ = take_over(own_keys / "own-rsa", key)
    [found] = await faults(installation)
    assert found.fault == f"{made} was taken over and is not used: add it to [idcontact] decryption_key_files"
    config = installation.config.read_text()
    installation.config.write_text(config.replace("decryption_key_files = [", f'decryption_key_files = ["{made}", '))
    assert await faults(installation) == []
    assert (await told(installation, f"decryption key {made.name}")).endswith(
        f"RSA 2048, thumbprint {key.thumbprint()}, taken over from another plugin"
    )


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("path", WHAT)
async def test_whatever_asterisk_answers_is_a_line(
    installation: Installation, ari: FakeAri, path: str, odd: str
) -> None:
    ari.other[path] = ODD[odd]
    found = await faults(installation)
    assert found, "it was seen"
    # What is asked afterwards is looked at all the same.
    assert {finding.what.partition(" of ")[0] for finding in found} <= {WHAT[path], "trunk to main", "modules"}
    assert "Traceback" not in "".join(finding.fault for finding in found)


async def test_a_language_without_any_sound_is_told_as_such(installation: Installation, ari: FakeAri) -> None:
    ari.other[SOUNDS] = ODD["404"]
    for finding in await faults(installation):
        assert finding.fault.startswith("missing in language nl: ")
        assert "run prompts/make-prompts" in finding.fault


async def test_a_module_that_some_carriers_need_is_named_with_what_falls_short(
    installation: Installation, ari: FakeAri
) -> None:
    modules = [module for module in cast("list[dict[str, str]]", GOOD[MODULES]) if module["name"] != "res_srtp.so"]
    ari.other[MODULES] = lambda: web.json_response(modules)
    assert {finding.fault for finding in await faults(installation)} == {
        "not loaded in Asterisk: res_srtp.so (calls with encrypted audio are refused (488)); add them to modules.conf"
    }


async def test_without_what_tells_of_asterisk_it_is_named(installation: Installation, ari: FakeAri) -> None:
    ari.other[INFO] = ODD["404"]
    assert "is res_ari_asterisk.so loaded" in (await faults(installation))[0].fault


@pytest.mark.parametrize(
    ("ways", "key"),
    [(("plain", "off"), "unverified"), (("goodbye", "plain"), "without_code"), (("goodbye", "goodbye"), "")],
)
async def test_callers_are_not_sent_to_a_plain_queue_that_is_not_there(
    installation: Installation, ari: FakeAri, keys_folder: Path, ways: tuple[str, str], key: str
) -> None:
    unverified, without_code = ways
    installation.write(keys_folder, unverified=f'"{unverified}"', without_code=f'"{without_code}"')
    assert await faults(installation) == []
    ari.plain = ""
    told = [f'[calls] {key} is "plain": nobody would be helped'] if key else []
    assert [finding.fault.partition("but ")[2] for finding in await faults(installation)] == told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[calls]\nname = "caf\xe9"\n', "not TOML: not in UTF-8"),
        (b"x = " + b"[" * 100_000, "cannot be looked at (RecursionError"),
        (b"\x00", "not TOML"),
        (b"", "[calls]: missing"),
    ],
)
async def test_whatever_the_configuration_holds_is_a_line(
    installation: Installation, content: bytes, told: str
) -> None:
    installation.config.write_bytes(content)
    found = await faults(installation)
    assert {finding.what for finding in found} == {"configuration"}
    assert told in "\n".join(finding.fault for finding in found)


async def test_folders_in_place_of_files_are_told(
    installation: Installation, keys_folder: Path, tmp_path: Path
) -> None:
    own_keys = tmp_path / "keys"
    shutil.copytree(keys_folder, own_keys)
    installation.write(own_keys)
    for path in (
        own_keys / "own-rsa/decryption-key.pem",
        installation.folder / "ari-password",
        own_keys / "own-rsa/master-key",
    ):
        path.unlink()
        path.mkdir()
        assert [f for f in await faults(installation) if f"{path}: Is a directory" in f.fault], path
    (own_keys / "own-rsa/master-key").rmdir()
    shutil.copy(keys_folder / "own-rsa/master-key", own_keys / "own-rsa/master-key")
    for path in (installation.folder / "idbellen.db", *installation.folder.glob("idbellen.db-*")):
        path.unlink()
    (installation.folder / "idbellen.db").mkdir()
    assert f"store {installation.folder}/idbellen.db: Is a directory" in [f.fault for f in await faults(installation)]
    installation.config.unlink()
    installation.config.mkdir()
    assert [f.fault for f in await faults(installation)] == [f"{installation.config}: Is a directory"]


async def test_a_store_that_somebody_changed_is_told(installation: Installation) -> None:
    with closing(sqlite3.connect(installation.folder / "idbellen.db")) as store:
        store.execute("UPDATE accounts SET queues = 'no JSON'")
        store.commit()
    [found] = await faults(installation)
    assert found.what == "store"
    assert "cannot be looked at (JSONDecodeError" in found.fault


async def test_check_names_every_secret_that_others_can_read(installation: Installation) -> None:
    more = """
[link_phone]
listen = "127.0.0.1:1"
bearer_token_file = "platform-token"
[ami]
password_file = "ami-password"
[supervisors]
api_token_file = "wallboard-token"
"""
    secrets = ("ari-password", "platform-token", "ami-password", "wallboard-token")
    installation.config.write_text(installation.config.read_text() + more)
    for name in secrets:
        (installation.folder / name).write_text("secret")
        (installation.folder / name).chmod(0o644)
    told = {finding.fault for finding in await faults(installation) if finding.what == "secret files"}
    files = [installation.folder / name for name in secrets]
    assert told == {f"{file}: readable for others; chmod 600 {file}" for file in files}


@pytest.mark.parametrize("output", ["closed", "read by nobody", "full"])
async def test_an_output_that_takes_nothing_is_no_traceback(installation: Installation, output: str) -> None:
    read, write = os.pipe()
    os.close(read)
    if output == "full":
        os.close(write)
        write = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-m", "idbellen", "check", "--config", str(installation.config)]
    if output == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    process = await asyncio.create_subprocess_exec(*command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, said = await process.communicate()
    assert said.decode().splitlines() == (["idbellen: [Errno 28] No space left on device"] if output == "full" else [])
    # Whoever closed it still is told by the exit code; a reader who has gone is what ends the command.
    assert process.returncode == {"closed": 0, "read by nobody": 141, "full": 1}[output]


async def test_every_character_can_be_told(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    place = installation.folder / "caf\u00e9.toml"
    code, output = await run_cli("check", "--config", str(place), whole=True)
    assert (code, output) == (
        1,
        f"FAULT configuration: {installation.folder}/caf\\xe9.toml: No such file or directory\n",
    )
    added = await run_cli(
        "agent", "add", "bob", "--endpoint", "PJSIP/bob", "--config", str(installation.config),
        given=f"{PASSWORD}\n", whole=True,
    )  # fmt: skip
    assert added == (0, "")


async def test_secrets_that_freepbx_opens_are_told(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # All of this installation lies where FreePBX changes modes.
    monkeypatch.setattr(check_module, "FREEPBX_FOLDERS", (installation.folder,))
    assert await faults(installation) == [], "no FreePBX here"
    monkeypatch.setattr(check_module, "FREEPBX_MARK", tmp_path)
    found = await faults(installation)
    assert {finding.what for finding in found} == {"secret files"}
    assert len(found) == 1, "once for each file"
    assert "'fwconsole chown' of FreePBX opens what lies in" in found[0].fault
    assert str(installation.folder / "ari-password") in found[0].fault


async def test_another_fastagi_server_at_our_address_is_told(installation: Installation, keys_folder: Path) -> None:
    port = free_ports()
    installation.write(keys_folder, more=f'[agi]\nlisten = "127.0.0.1:{port}"\n')

    async def found() -> list[Finding]:
        return [finding async for finding in check(installation.config) if finding.what == "FastAGI"]

    [nobody] = await found()
    assert (nobody.fault, nobody.detail) == ("", f"nobody listens on 127.0.0.1:{port}: idbellen does while it runs")

    async def another(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(another, "127.0.0.1", port)
    [told] = await found()
    assert f"something else than idbellen answers on 127.0.0.1:{port}: give [agi] another listen" in told.fault
    server.close()


async def test_without_ari_nothing_is_asked_of_it(installation: Installation, keys_folder: Path) -> None:
    installation.write(keys_folder, ari_port="off", more=f'[agi]\nlisten = "127.0.0.1:{free_ports()}"\n')
    looked_at = {finding.what for finding in [finding async for finding in check(installation.config)]}
    assert "FastAGI" in looked_at
    assert not looked_at & {"ARI", "modules", "prompts", "dialplan"}
