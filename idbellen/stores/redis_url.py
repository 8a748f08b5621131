"""Where a Redis store is: the address of a server, or of the Sentinels that know which server it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

REDIS_PORT = 6379
SENTINEL_PORT = 26379
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_URL = re.compile(
    rf"(?P<tls>rediss|redis)(?P<sentinel>\+sentinel)?://"
    rf"(?:(?P<user>[^\s/?#@:]*)(?::(?P<password>[^\s/?#@]+))?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)"
    rf"(?(sentinel)/(?P<service>[A-Za-z0-9._-]+))"
    rf"(?:/(?P<database>[0-9]{{1,5}})?)?"
)
_EXPECTED = "redis://HOST:PORT/NUMBER, or for Sentinel redis+sentinel://HOST:PORT,.../NAME/NUMBER; rediss for TLS"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says. As a string it shows no password.

    ``hosts`` are pairs of host and port: one server, or Sentinels that know the server by its name, ``service``,
    which is empty without Sentinel. ``user`` and ``password`` are empty where the URL has none.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str = ""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    def __str__(self) -> str:
        scheme = f"redis{'s' if self.tls else ''}{'+sentinel' if self.service else ''}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{hosts}{'/' if self.service else ''}{self.service}/{self.database}"


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL.

    Raises:
        ValueError: it is none of the forms; the message says which there are.

    """
    found = _URL.fullmatch(text)
    usual = SENTINEL_PORT if found and found["sentinel"] else REDIS_PORT
    hosts = tuple(_host(part, usual) for part in found["hosts"].split(",")) if found else ()
    if not found or (len(hosts) > 1 and not found["sentinel"]) or not all(0 < port < 1 << 16 for _, port in hosts):
        raise ValueError(_EXPECTED)
    return RedisUrl(
        hosts,
        found["service"] or "",
        int(found["database"] or 0),
        unquote(found["user"] or ""),
        unquote(found["password"] or ""),
        tls=found["tls"] == "rediss",
    )


def _host(text: str, usual_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(usual_port)
    return host.strip("[]"), int(port)
