"""The commands of the README's "With your own Asterisk", as far as they touch nothing of this machine."""

from __future__ import annotations

import asyncio
import grp
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from idbellen.demo.pbx import CHECKOUT
from tests.support.installation import PASSWORD, run_cli

if TYPE_CHECKING:
    from pathlib import Path

README = (CHECKOUT / "README.md").read_text()


def blocks() -> list[str]:
    """Give the commands, block by block."""
    part = README.split("## With your own Asterisk\n")[1].split("\n## ")[0]
    found = re.findall(r"^( *)```sh\n(.*?)^ *```$", part, re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def block(text: str) -> str:
    """Give the block that has this in it."""
    [found] = [block for block in blocks() if text in block]
    return found


async def run(script: str, *, shell: str = "sh") -> None:
    process = await asyncio.create_subprocess_exec(
        shell, "-euc", script, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (0, "")


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Give a folder in place of /etc, with what a PBX has of its own."""
    for name in ("asterisk", "idbellen"):
        (tmp_path / name).mkdir()
    for name in ("extensions", "http", "ari", "musiconhold", "pjsip"):
        (tmp_path / f"asterisk/{name}.conf").write_text("[general]\nown=yes")
    return tmp_path


def not_filled_in(etc: Path) -> list[Path]:
    return [path for path in etc.rglob("*.conf") if re.search(r"^[^;\n]*@[A-Z_]+@", path.read_text(), re.MULTILINE)]


async def asterisk_files(etc: Path, branch: str, shell: str) -> Path:
    """Let the commands of step 4 fill ``etc``; gives the folder of what is included."""
    (etc / "idbellen/ari-password").write_text("a+b/c=\n")
    group = grp.getgrgid(os.getgid()).gr_name
    script = "\n".join([block("AUTH_KEY="), f"ASTERISK={group}", block("fill() {"), branch])
    if os.getuid() != 0:
        # Only root can give files away.
        script = script.replace("-o root ", "")
    await run(script.replace("/etc/", f"{etc}/"), shell=shell)
    assert not_filled_in(etc) == []
    assert "password=a+b/c=\n" in (etc / "asterisk/idbellen.d/ari.conf").read_text()
    modes = {path.stat().st_mode & 0o777 for path in (etc / "asterisk/idbellen.d").iterdir()}
    assert modes == {0o640}
    return etc / "asterisk"


@pytest.mark.parametrize("shell", ["sh", "bash"])
async def test_a_pbx_that_only_does_this_takes_all(etc: Path, shell: str) -> None:
    made = await asterisk_files(etc, block("--backup"), shell)
    for own in (CHECKOUT / "asterisk-conf").glob("*.conf"):
        assert (made / own.name).read_text() == own.read_text()
        included = re.findall(r"^#include (.*)$", own.read_text(), re.MULTILINE)
        assert [name for name in included if not (made / name).is_file()] == []
    assert (made / "http.conf~").read_text() == "[general]\nown=yes"
    phones = (made / "idbellen.d/pjsip.conf").read_text()
    passwords = re.findall(r"^password=(.*)$", phones, re.MULTILINE)
    assert "[ann](idbellen-agent)" in phones
    assert "[bob](idbellen-agent)" in phones
    assert len(set(passwords)) == 2
    assert min(map(len, passwords)) == 24


async def test_a_pbx_of_ones_own_keeps_what_it_has(etc: Path) -> None:
    made = await asterisk_files(etc, block("[general](+)"), "sh")
    for name in ("extensions", "http", "ari", "musiconhold"):
        text = (made / f"{name}.conf").read_text()
        assert text.startswith("[general]\nown=yes\n")
        included = re.findall(r"^#include (.*)$", text, re.MULTILINE)
        assert [file for file in included if not (made / file).is_file()] == []
    assert (made / "pjsip.conf").read_text() == "[general]\nown=yes"
    assert (
        (made / "musiconhold.conf").read_text().endswith("[idbellen]\nmode=files\ndirectory=idbellen-moh\nsort=alpha\n")
    )
    assert sorted(path.name for path in (made / "idbellen.d").iterdir()) == ["ari.conf", "extensions.conf", "http.conf"]


async def test_the_example_configuration_and_the_first_agent_go_together(tmp_path: Path) -> None:
    example = (CHECKOUT / "idbellen.example.toml").read_text()
    config = tmp_path / "idbellen.toml"
    config.write_text(example.replace("/var/lib/idbellen", str(tmp_path)))
    assert (await run_cli("keys", "generate", str(tmp_path)))[0] == 0
    [command] = block("idbellen agent add").splitlines()
    assert await run_cli(*command.split()[1:], "--config", str(config), given=f"{PASSWORD}\n") == (0, "")
    listed = await run_cli("agent", "list", "--config", str(config))
    assert listed == (0, "ann\tPJSIP/ann\tagent\tresidents:0\n")


@pytest.mark.parametrize("shell", ["sh", "bash"])
async def test_every_block_is_of_the_shell_and_its_files_are_there(shell: str) -> None:
    for text in blocks():
        process = await asyncio.create_subprocess_exec(shell, "-nc", text)
        assert await process.wait() == 0, text
    for name in re.findall(
        r" ((?:systemd|prompts|dialplan|asterisk-conf)/[\w./-]+|[\w.]+\.(?:toml|txt))",
        "\n".join(blocks()).replace("$SHAPE", "address"),
    ):
        assert (CHECKOUT / name).exists() or name.startswith("prompts/nl"), name
