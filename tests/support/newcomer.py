"""What a newcomer does with ``make run``, without a browser: log in as a made-up citizen, call, and look as an agent.

``python -m tests.support.newcomer OUTPUT``: OUTPUT is a file with what a running demo has printed. Says what the
agent's screen showed, and ends with 0 if that was who called.
"""

from __future__ import annotations

import asyncio
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import aiohttp

LONGEST_WALK = 10
CALL_SECONDS = 40.0


class Form(HTMLParser):
    """The first form of a page that is sent, filled in with what stands first."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._inside = self._done = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and not self._done and given.get("method", "").lower() == "post":
            self._inside, self.action = True, given.get("action", "")
        elif self._inside and tag in ("input", "button", "select") and "name" in given:
            self.fields.setdefault(given["name"], given.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self._inside:
            self._inside, self._done = False, True


async def get_code(http: aiohttp.ClientSession, start: str) -> str:
    """Press the button of each page, from the municipality's, until one shows a code; gives that."""
    page, url = await (await http.get(start)).text(), start
    for _ in range(LONGEST_WALK):
        if block := re.search(r'id="code".*?</(?:ol|ul|p|div)>', page, re.DOTALL):
            return "".join(re.findall(r"<span>([0-9]+)</span>", block[0]))
        form = Form(page)
        if form.action is None:
            break
        origin = "/".join(url.split("/")[:3])
        async with http.post(urljoin(url, form.action), data=form.fields, headers={"Origin": origin}) as answer:
            page, url = await answer.text(), str(answer.url)
    raise SystemExit(f"no code: the walk ended at {url.split('?')[0]}")


async def make(*words: str) -> None:
    process = await asyncio.create_subprocess_exec("make", *words, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise SystemExit(f"make {words[0]} failed")


async def watch_as_agent(http: aiohttp.ClientSession, dashboard: str, name: str, password: str, code: str) -> str:
    """Be available, let the phone call, and fetch what the screen shows when the call is there."""
    headers = {"Origin": dashboard.rstrip("/")}
    form = {"name": name, "password": password}
    async with http.post(urljoin(dashboard, "login"), data=form, headers=headers) as answer:
        if answer.status != 200:
            raise SystemExit(f"the agent cannot log in: {answer.status}")
    async with http.ws_connect(urljoin(dashboard, "live"), headers=headers) as socket:
        await socket.send_json({"type": "available"})
        await make("call", f"CODE={code}")
        while (message := await socket.receive_json()).get("state") != "in_call":
            pass
        asked = {"secret": message["call"]["secret"]}
        async with http.post(urljoin(dashboard, "attributes"), json=asked, headers=headers) as answer:
            status: str = (await answer.json())["status"]
    await make("hangup")
    return status


async def main(told: str) -> None:
    def find(pattern: str) -> str:
        found = re.search(pattern, told)
        if not found:
            raise SystemExit(f"make run did not tell {pattern!r}")
        return found[1]

    # Cookies of an address in place of a name.
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as citizen, asyncio.timeout(CALL_SECONDS):
        code = await get_code(citizen, find(r"The municipality +(\S+)"))
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as agent:
            name, password = find(r"Log in as (\S+)"), find(r"with password ([^\s,]+)")
            status = await watch_as_agent(agent, find(r"The dashboard +(\S+)"), name, password, code)
    sys.stdout.write(f"{status}\n")
    if status != "verified":
        raise SystemExit(f"the agent's screen says {status}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_text()))
