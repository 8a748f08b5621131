"""The configuration: one TOML file, environment variables on top, secrets in files of their own.

Every field is described in ``idbellen.example.toml``. A variable is ``IDBELLEN_``, the table, two underscores
and the key: ``IDBELLEN_ASTERISK__URL``. Only :mod:`idbellen.cli` and :mod:`idbellen.app` read this.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

ENV_PREFIX = "IDBELLEN_"
LEAST_MASTER_KEY_BYTES = 32

Language = Literal["nl", "en"]


class ConfigError(Exception):
    """The configuration is wrong; one line for each fault, with its name, its place and what is expected."""


def _listen_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004 - ports are 16 bits
        raise ValueError("an address and a port, such as 127.0.0.1:8081")
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s]+[^?#\s]*", value):
        raise ValueError("a URL that begins with http:// or https://, without ? or #")
    return value.rstrip("/")


def _phone_number(value: str) -> str:
    if not re.fullmatch(r"\+?[0-9]{2,15}", value):
        raise ValueError("a phone number of digits only, such as +31201234567")
    return value


def _account_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        raise ValueError("letters, digits, dots, dashes and underscores only")
    return value


Listen = Annotated[str, AfterValidator(_listen_address)]
Url = Annotated[str, AfterValidator(_http_url)]
PhoneNumber = Annotated[str, AfterValidator(_phone_number)]
Name = Annotated[str, AfterValidator(_account_name)]
Seconds = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A table of the file: nothing unknown in it, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Asterisk(Table):
    """Where Asterisk's ARI is, and as whom we come."""

    url: Url = "http://127.0.0.1:8088/ari"
    app: Name = "idbellen"
    user: str = "idbellen"
    password_file: Path


class Calls(Table):
    """How a call goes; times in seconds."""

    phone_number: PhoneNumber
    language: Language = "nl"
    tries: Annotated[int, Field(ge=1, le=10)] = 3
    first_digit_seconds: Seconds = 10.0
    between_digits_seconds: Seconds = 8.0
    overall_seconds: Seconds = 120.0
    unverified: Literal["plain", "goodbye"] = "plain"
    ring_seconds: Seconds = 20.0
    rest_seconds: Seconds = 5.0
    music_class: Name = "idbellen"


class Sessions(Table):
    """What is kept, where and for how long; times in seconds."""

    store: Path
    master_key_file: Path
    code_digits: Annotated[int, Field(ge=8, le=20)] = 10
    code_seconds: Seconds = 1800.0
    keep_seconds: Seconds = 7200.0


class IdContact(Table):
    """The internal interface for ID Contact's core and auth plugins."""

    listen: Listen = "127.0.0.1:8081"
    url: Url
    decryption_key_file: Path
    verification_key_files: Annotated[tuple[Path, ...], Field(min_length=1)]
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0


class Citizen(Table):
    """The citizen's page. ``demo_phone_url``: only the demo sets it, and the page then offers its phone."""

    listen: Listen = "127.0.0.1:8080"
    url: Url
    demo_phone_url: Url | None = None


class Dashboard(Table):
    """The agents' dashboard; times in seconds."""

    listen: Listen = "127.0.0.1:8082"
    url: Url
    language: Language = "nl"
    grace_seconds: Seconds = 15.0
    idle_seconds: Seconds = 3600.0
    absolute_seconds: Seconds = 43200.0


class Texts(Table):
    """A text in both languages."""

    nl: str
    en: str

    def in_language(self, language: str) -> str:
        """Give the text in one language."""
        return self.en if language == "en" else self.nl


class Purpose(Table):
    """Why citizens call, under the tag that ID Contact's core knows, and what an agent then sees."""

    title: Texts
    attributes: tuple[str, ...]


class Log(Table):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    asterisk: Asterisk
    calls: Calls
    sessions: Sessions
    idcontact: IdContact
    citizen: Citizen
    dashboard: Dashboard
    log: Log = Log()
    purposes: Annotated[dict[str, Purpose], Field(min_length=1)]
    attributes: dict[str, Texts] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is given
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment go before the file."""
        return env_settings, init_settings


def load(path: Path) -> Settings:
    """Read the configuration. Relative paths in it count from the folder of the file.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.

    """
    try:
        text = path.read_text()
        content = tomllib.loads(text)
    except OSError as fault:
        raise ConfigError(f"{path}: {fault.strerror}") from None
    except ValueError as fault:
        raise ConfigError(f"{path}: not TOML: {fault}") from None
    try:
        settings = Settings(**_with_absolute_paths(content, path.parent.resolve()))
    except ValidationError as fault:
        lines = [_explain(path, text, problem) for problem in fault.errors()]
        raise ConfigError("\n".join(lines)) from None
    return settings


def _with_absolute_paths(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    def absolute(key: str, value: Any) -> Any:  # noqa: ANN401 - TOML values
        if isinstance(value, dict):
            return {name: absolute(name, inner) for name, inner in value.items()}
        if key.endswith("_files") and isinstance(value, list):
            return [str(folder / item) if isinstance(item, str) else item for item in value]
        if (key.endswith("_file") or key == "store") and isinstance(value, str):
            return str(folder / value)
        return value

    return {name: absolute(name, value) for name, value in content.items()}


def _explain(path: Path, text: str, problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    parts = [str(part) for part in problem["loc"]]
    table, key = ".".join(parts[:-1]), parts[-1]
    name = f"[{table}] {key}" if table else f"[{key}]"
    variable = ENV_PREFIX + "__".join(parts).upper()
    place = variable if variable in os.environ else f"{path}{_line(text, parts)}"
    match problem["type"]:
        case "missing":
            expected = "missing"
        case "extra_forbidden":
            expected = "unknown: misspelt, or in the wrong table?"
        case _:
            expected = "expected " + problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{place}: {name}: {expected}"


def _line(text: str, parts: list[str]) -> str:
    """Find the line of a key, to point at; empty if it is not there as written plainly."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\]]+)\]", line)
        if header:
            table = header[1].strip()
        key = re.match(r"\s*([A-Za-z0-9_.-]+)\s*=", line)
        here = table.split(".") if table else []
        here += key[1].split(".") if key else []
        if here == parts or (len(parts) == len(here) + 1 and header and parts[-1] not in text):
            return f":{number}"
    return ""


def read_secret(path: Path) -> str:
    """Read a secret from its file, without the newline at the end.

    Raises:
        ConfigError: it cannot be read or is empty.

    """
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: {getattr(fault, 'strerror', None) or 'not text'}") from None
    if not secret:
        raise ConfigError(f"{path}: empty")
    return secret


def read_master_key(path: Path) -> bytes:
    """Read the master key.

    Raises:
        ConfigError: it cannot be read or is too short.

    """
    key = read_secret(path).encode()
    if len(key) < LEAST_MASTER_KEY_BYTES:
        raise ConfigError(
            f"{path}: expected at least {LEAST_MASTER_KEY_BYTES} characters; 'idbellen keys generate' makes one"
        )
    return key


def read_pem(path: Path) -> bytes:
    """Read a PEM file.

    Raises:
        ConfigError: it cannot be read.

    """
    try:
        return path.read_bytes()
    except OSError as fault:
        raise ConfigError(f"{path}: {fault.strerror}") from None
