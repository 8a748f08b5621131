"""The configuration: one TOML file, environment variables on top, secrets in files of their own.

Every field is described in ``idbellen.example.toml``. A variable is ``IDBELLEN_``, the table, two underscores
and the key: ``IDBELLEN_ASTERISK__URL``. Only :mod:`idbellen.cli` and :mod:`idbellen.service.app` read this.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - pydantic reads the annotations
import os
import re
import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from idbellen.domain.hours import parse_day
from idbellen.domain.ids import QueueName
from idbellen.domain.languages import LANGUAGES, Language
from idbellen.domain.numbers import FORMS
from idbellen.domain.queueing import (
    ForPurpose,
    Goodbye,
    Plain,
    QueueRules,
    ToQueue,
    WayOut,
    WithoutCode,
    parse_way_out,
    parse_without_code,
)
from idbellen.domain.statistics import CallOutcome
from idbellen.domain.whereabouts import MAIN
from idbellen.stores.redis_url import RedisUrl, parse_redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENV_PREFIX = "IDBELLEN_"
DEFAULT_QUEUE = QueueName("default")
LEAST_MASTER_KEY_BYTES = 32

# What others may read; every other file that is named holds a secret.
_NO_SECRETS = frozenset({"verification_key_files", "theme_file", "store_ca_file"})


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


def _host(value: str) -> str:
    if not re.fullmatch(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", value):
        raise ValueError("a host in lower case, with its port if that is not the usual one: auth.example:8443")
    return value


def _day(value: str) -> str:
    try:
        parse_day(value)
    except ValueError as fault:
        raise ValueError(f"hours such as 09:00-12:30, 13:30-17:00: {fault}") from None
    return value


def _way_out(value: object) -> WayOut:
    return parse_way_out(value if isinstance(value, str) else "")


def _without_code(value: object) -> WithoutCode | None:
    return parse_without_code(value if isinstance(value, str) else "")


def _outside_endpoint(value: str) -> str:
    if sum(value.count(f"{{{form}}}") for form in FORMS) != 1 or "/" not in value:
        raise ValueError(
            "an endpoint with {number}, {e164}, {international} or {national} in it, such as PJSIP/{number}@trunk"
        )
    return value


def _of_a_member(example: str) -> Callable[[str], str]:
    def checked(value: str) -> str:
        if not any(part in value for part in ("{endpoint}", "{name}", "{account}")):
            raise ValueError(f'something with {{endpoint}}, {{name}} or {{account}} in it, such as "{example}"')
        return value

    return checked


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError("a time zone such as Europe/Amsterdam") from None
    return value


def _path_or_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    return parse_redis_url(value) if _is_url(value) else Path(value)


def _is_url(value: str) -> bool:
    return "://" in value


Listen = Annotated[str, AfterValidator(_listen_address)]
Url = Annotated[str, AfterValidator(_http_url)]
PhoneNumber = Annotated[str, AfterValidator(_phone_number)]
Name = Annotated[str, AfterValidator(_account_name)]
OurQueue = Annotated[QueueName, AfterValidator(_account_name)]
Seconds = Annotated[float, Field(gt=0)]
Host = Annotated[str, AfterValidator(_host)]
Day = Annotated[str, AfterValidator(_day)]
TimeZone = Annotated[str, AfterValidator(_timezone)]
ClientUrl = Literal["page", "tel"]
Way = Annotated[WayOut, PlainValidator(_way_out)]
ForWithoutCode = Annotated[WithoutCode | None, PlainValidator(_without_code)]
MemberInterface = Annotated[str, AfterValidator(_of_a_member("Local/{name}@from-queue/n"))]
StateInterface = Annotated[str, AfterValidator(_of_a_member("hint:{name}@ext-local"))]
OutsideEndpoint = Annotated[str, AfterValidator(_outside_endpoint)]
StorePlace = Annotated[Path | RedisUrl, BeforeValidator(_path_or_url)]


class Table(BaseModel):
    """A table of the file: nothing unknown in it, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _in_each_language(texts: dict[Language, str]) -> dict[Language, str]:
    for language in LANGUAGES:
        if language not in texts:
            raise ValueError(f'a text in each language: "{language}" is missing')
    return texts


Texts = Annotated[dict[Language, str], AfterValidator(_in_each_language)]


class Server(Table):
    """Where an Asterisk's ARI is, and as whom we come. ``trunk``: the PJSIP endpoint over which the others reach it."""

    url: Url
    user: str = "idbellen"
    password_file: Path
    trunk: Name = ""


class Asterisk(Server):
    """The Asterisk, and with ``others`` several by their names, which are one contact centre."""

    url: Url = "http://127.0.0.1:8088/ari"
    app: Name = "idbellen"
    others: dict[Name, Server] = {}

    @property
    def servers(self) -> dict[str, Server]:
        """All of them by their names."""
        return {MAIN: self, **self.others}


def _as_unverified(validated: dict[str, Any]) -> WithoutCode:
    return Goodbye() if validated.get("unverified") == "goodbye" else Plain()


class Calls(Table):
    """How a call goes; times in seconds."""

    phone_number: PhoneNumber
    language: Language = "nl"
    tries: Annotated[int, Field(ge=1, le=10)] = 3
    first_digit_seconds: Seconds = 10.0
    between_digits_seconds: Seconds = 8.0
    overall_seconds: Seconds = 120.0
    unverified: Literal["plain", "goodbye"] = "plain"
    without_code: ForWithoutCode = Field(default_factory=_as_unverified)
    late_seconds: Annotated[float, Field(ge=0)] = 20.0
    ring_seconds: Seconds = 20.0
    rest_seconds: Seconds = 5.0
    missed_offers: Annotated[int, Field(ge=0)] = 3
    outside_endpoint: OutsideEndpoint | None = None
    music_class: Name = "idbellen"
    timezone: TimeZone = "Europe/Amsterdam"


class Sessions(Table):
    """What is kept, where and for how long; times in seconds."""

    store: StorePlace
    store_password_file: Path | None = None
    store_ca_file: Path | None = None
    master_key_file: Path
    code_digits: Annotated[int, Field(ge=8, le=20)] = 10
    code_seconds: Seconds = 1800.0
    keep_seconds: Seconds = 7200.0

    @model_validator(mode="after")
    def _fitting_the_store(self) -> Self:
        url = self.store if isinstance(self.store, RedisUrl) else None
        if self.store_password_file and (url is None or url.password):
            raise ValueError("store_password_file only for a store in Redis without a password in its URL")
        if self.store_ca_file and (url is None or not url.tls):
            raise ValueError("store_ca_file only for a store with a URL that begins with rediss")
        return self


class IdContact(Table):
    """The internal interface for ID Contact's core and auth plugins."""

    listen: Listen = "127.0.0.1:8081"
    url: Url
    decryption_key_files: Annotated[tuple[Path, ...], Field(min_length=1)]
    verification_key_files: Annotated[tuple[Path, ...], Field(min_length=1)]
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0
    client_url: ClientUrl = "page"
    default_purpose: str | None = None
    basic_user: str | None = None
    basic_password_file: Path | None = None
    bearer_token_file: Path | None = None
    protect: Literal["start", "all"] = "start"

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        if (self.basic_user is None) != (self.basic_password_file is None):
            raise ValueError("basic_user and basic_password_file together, or neither")
        return self


class Feedback(Table):
    """What is told to the ``session_url`` of an auth result while its session is in use."""

    allowed_hosts: tuple[Host, ...] = ()
    moments: tuple[Literal["code_accepted", "connected"], ...] = ("code_accepted", "connected")
    every_minutes: Annotated[float, Field(gt=0)] = 5.0
    timeout_seconds: Seconds = 5.0


class Citizen(Table):
    """The citizen's page. ``demo_phone_url``: only the demo sets it, and the page then offers its phone."""

    listen: Listen = "127.0.0.1:8080"
    url: Url
    name: Texts = {"nl": "Gemeente", "en": "Municipality"}
    begin_url: Url | None = None
    theme_file: Path | None = None
    warn_seconds: Seconds = 120.0
    demo_phone_url: Url | None = None


class Dashboard(Table):
    """The agents' dashboard; times in seconds."""

    listen: Listen = "127.0.0.1:8082"
    url: Url
    language: Language = "nl"
    grace_seconds: Seconds = 15.0
    idle_seconds: Seconds = 3600.0
    absolute_seconds: Seconds = 43200.0
    extension_seconds: Seconds = 60.0
    pause_reasons: dict[Name, Texts] = {}


class Proxies(Table):
    """The web servers before the pages. ``trusted``: from whom an ``X-Forwarded-For`` is believed."""

    trusted: tuple[IPvAnyNetwork, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class Supervisors(Table):
    """What supervisors may, and how long figures are kept. ``monitor``: nothing is listened in on by default."""

    monitor: tuple[Literal["listen", "whisper", "barge"], ...] = ()
    announce_monitor: bool = True
    history_days: Annotated[int, Field(ge=1)] = 90
    audit_days: Annotated[int, Field(ge=1)] = 365
    short_abandon_seconds: Annotated[float, Field(ge=0)] = 5.0
    service_level_percent: Annotated[float, Field(gt=0, le=100)] = 80.0
    api_token_file: Path | None = None


class Attribute(Table):
    """The label of an attribute, whose texts stand beside the rest in the table.

    ``masked``: it is hidden until the agent asks for it; by default only a BSN.
    """

    label: Texts
    masked: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _label(cls, table: object) -> object:
        if not isinstance(table, dict):
            return table
        rest = {key: value for key, value in table.items() if key not in LANGUAGES}
        return {"label": {key: value for key, value in table.items() if key in LANGUAGES}} | rest


USUALLY = QueueRules()


class Queue(Table):
    """How callers wait, for how long and where they go otherwise; times in seconds. Without hours it is always open."""

    title: Texts | None = None
    strategy: Literal["longest-idle", "round-robin", "ring-all"] = "longest-idle"
    verified_first: bool = True
    wrap_up_seconds: Annotated[float, Field(ge=0)] = 0.0
    longest_wait_seconds: Annotated[float, Field(ge=0)] = 0.0
    most_waiting: Annotated[int, Field(ge=0)] = 0
    announce_seconds: Annotated[float, Field(ge=0)] = 60.0
    comfort_seconds: Annotated[float, Field(ge=0)] = 0.0
    music_class: Name | None = None
    answer_within_seconds: Seconds = 25.0
    when_closed: Way = USUALLY.way_out(CallOutcome.CLOSED)
    when_unstaffed: Way | None = None
    when_full: Way = USUALLY.way_out(CallOutcome.FULL)
    when_too_long: Way = USUALLY.way_out(CallOutcome.TOO_LONG)
    monday: Day | None = None
    tuesday: Day | None = None
    wednesday: Day | None = None
    thursday: Day | None = None
    friday: Day | None = None
    saturday: Day | None = None
    sunday: Day | None = None
    special: dict[dt.date, Day] = {}

    @property
    def ways_out(self) -> dict[CallOutcome, WayOut]:
        """Where callers go whom the queue cannot take or keep, as far as that is said."""
        said = {
            CallOutcome.CLOSED: self.when_closed,
            CallOutcome.UNSTAFFED: self.when_unstaffed,
            CallOutcome.FULL: self.when_full,
            CallOutcome.TOO_LONG: self.when_too_long,
        }
        return {reason: way for reason, way in said.items() if way}

    @property
    def week(self) -> tuple[str | None, ...]:
        """The hours of the seven weekdays, as written, from Monday on."""
        return (
            self.monday, self.tuesday, self.wednesday, self.thursday, self.friday, self.saturday, self.sunday,
        )  # fmt: skip


class Purpose(Table):
    """Why citizens call, under the tag that ID Contact's core knows, and what an agent then sees."""

    title: Texts
    attributes: tuple[str, ...]
    queue: OurQueue = DEFAULT_QUEUE
    admit_unverified: bool = False
    priority: int = 0
    phone_number: PhoneNumber | None = None
    client_url: ClientUrl | None = None


class Agi(Table):
    """Where the dialplan of a PBX with queues of its own asks for us, by FastAGI: not at FreePBX's own 4573."""

    listen: Listen = "127.0.0.1:4580"


class Ami(Table):
    """Where that PBX tells of its queues and calls, and as whom we come."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65536)] = 5038
    user: str = "idbellen"
    password_file: Path


class Pbx(Table):
    """Queues that the PBX keeps itself, each with the queue of ours that it is shown as; times in seconds."""

    queues: dict[str, OurQueue] = {}
    member_interface: MemberInterface = "{endpoint}"
    state_interface: StateInterface = "{endpoint}"
    lost_seconds: Seconds = 30.0


class LinkPhone(Table):
    """Two addresses for any other telephone platform, and the credentials that it must show."""

    listen: Listen
    basic_user: str | None = None
    basic_password_file: Path | None = None
    bearer_token_file: Path | None = None

    @model_validator(mode="after")
    def _some_credentials(self) -> Self:
        if (self.basic_user is None) != (self.basic_password_file is None):
            raise ValueError("basic_user and basic_password_file together, or neither")
        if self.basic_user is None and self.bearer_token_file is None:
            raise ValueError("credentials: basic_user and basic_password_file, or bearer_token_file")
        return self


class Log(Table):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Cluster(Table):
    """Of several processes one serves and the others stand by. ``host``: where they reach this one's listeners."""

    host: Host


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    asterisk: Asterisk | None = None
    calls: Calls
    sessions: Sessions
    idcontact: IdContact
    citizen: Citizen
    dashboard: Dashboard
    proxies: Proxies = Proxies()
    supervisors: Supervisors = Supervisors()
    feedback: Feedback = Feedback()
    agi: Agi | None = None
    ami: Ami | None = None
    pbx: Pbx = Pbx()
    link_phone: LinkPhone | None = None
    cluster: Cluster | None = None
    log: Log = Log()
    queues: dict[OurQueue, Queue] = {}
    purposes: Annotated[dict[str, Purpose], Field(min_length=1)]
    attributes: dict[str, Attribute] = {}
    methods: dict[str, Texts] = {}

    @model_validator(mode="after")
    def _names_that_exist(self) -> Self:
        for tag, purpose in self.purposes.items():
            if purpose.queue != DEFAULT_QUEUE and purpose.queue not in self.queues:
                raise ValueError(f"[purposes.{tag}] queue: a queue with a table: there is no [queues.{purpose.queue}]")
        for name, queue in self.queues.items():
            for reason, way in queue.ways_out.items():
                if isinstance(way, ToQueue) and way.queue not in {*self.queues, DEFAULT_QUEUE}:
                    key = f"[queues.{name}] when_{reason.value}"
                    raise ValueError(f"{key}: a queue with a table: there is no [queues.{way.queue}]")
        for theirs, ours in self.pbx.queues.items():
            if ours not in {*self.queues, DEFAULT_QUEUE}:
                raise ValueError(f"[pbx.queues] {theirs}: a queue with a table: there is no [queues.{ours}]")
        self._purpose_of_callers_without_a_code()
        wanted = self.idcontact.default_purpose
        if wanted is not None and wanted not in self.purposes:
            raise ValueError(f"[idcontact] default_purpose: a purpose with a table: there is no [purposes.{wanted}]")
        if self.cluster and not isinstance(self.sessions.store, RedisUrl):
            raise ValueError("[sessions] store: a store in Redis, which the processes of a [cluster] share")
        return self

    def _purpose_of_callers_without_a_code(self) -> None:
        way = self.calls.without_code
        if not isinstance(way, ForPurpose):
            return
        own = self.purposes.get(way.purpose)
        if own is None:
            raise ValueError(f"[calls] without_code: a purpose with a table: there is no [purposes.{way.purpose}]")
        if not own.admit_unverified:
            key = f"[purposes.{way.purpose}] admit_unverified"
            raise ValueError(f"{key}: true, since [calls] without_code has callers served for this purpose")

    @model_validator(mode="after")
    def _somewhere_to_be_called(self) -> Self:
        if self.asterisk:
            self._asterisks_reach_each_other(self.asterisk)
        elif self.agi is None:
            raise ValueError("[asterisk]: this table, or [agi] for a PBX that keeps its queues")
        return self

    @property
    def servers(self) -> dict[str, Server]:
        """The Asterisks whose calls we connect, by their names; none where a PBX connects them all."""
        return self.asterisk.servers if self.asterisk else {}

    def _asterisks_reach_each_other(self, asterisk: Asterisk) -> None:
        others = asterisk.others
        if MAIN in others:
            raise ValueError(f"[asterisk.others.{MAIN}]: another name: this is what [asterisk] itself is called")
        for name, server in asterisk.servers.items() if others else ():
            if not server.trunk:
                table = "asterisk" if name == MAIN else f"asterisk.others.{name}"
                raise ValueError(f"[{table}] trunk: the PJSIP endpoint over which the other Asterisks reach this one")

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


def secret_files(table: BaseModel) -> Iterator[Path]:
    """Give the files with secrets that a table, or all of the configuration, names."""
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from secret_files(value)
        elif isinstance(value, dict):
            for inner in value.values():
                if isinstance(inner, BaseModel):
                    yield from secret_files(inner)
        elif name.endswith("_file") and isinstance(value, Path) and name not in _NO_SECRETS:
            yield value
        elif name.endswith("_files") and name not in _NO_SECRETS:
            yield from value


def load(path: Path) -> Settings:
    """Read the configuration. Relative paths in it count from the folder of the file.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.

    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as fault:
        raise ConfigError(f"{path}: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not TOML: not in UTF-8") from None
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
        if isinstance(value, str) and (key.endswith("_file") or (key == "store" and not _is_url(value))):
            return str(folder / value)
        return value

    return {name: absolute(name, value) for name, value in content.items()}


def _explain(path: Path, text: str, problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    parts = [str(part) for part in problem["loc"] if part != "[key]"]
    if not parts:
        # What concerns several tables names its place itself.
        name, _, expected = message.partition(": ")
        return f"{path}{_line(text, re.split(r'[].[ ]+', name)[1:])}: {name}: expected {expected}"
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
            expected = f"expected {message}"
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
