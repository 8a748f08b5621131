"""The configuration: every fault is told with its name, its place and what is expected."""

from pathlib import Path

import pytest

from idbellen.demo.pbx import CHECKOUT
from idbellen.domain.queueing import ForPurpose, Goodbye, Plain, WithoutCode
from idbellen.service.config import ConfigError, load, read_master_key, read_secret
from idbellen.stores.redis_url import RedisUrl

EXAMPLE = CHECKOUT / "idbellen.example.toml"
STORE = '"/var/lib/idbellen/idbellen.db"'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    copy = tmp_path / "idbellen.toml"
    copy.write_text(EXAMPLE.read_text())
    return copy


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def fault(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file)
    return str(caught.value)


def test_the_example_is_valid_and_its_defaults_are_the_defaults(file: Path) -> None:
    full = load(file)
    shortened = [line for line in file.read_text().splitlines() if "# default" not in line]
    file.write_text("\n".join(shortened))
    assert load(file) == full


WEST = """
[asterisk.others.west]
url = "http://10.0.0.21:8088/ari"
password_file = "ari-password-west"
trunk = "to-west"
[calls]
"""


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('unverified = "plain"', Plain()),
        ('unverified = "goodbye"', Goodbye()),
        ('unverified = "goodbye"\nwithout_code = "plain"', Plain()),
        ('without_code = "off"', None),
    ],
)
def test_callers_without_a_code_go_where_those_go_who_are_not_verified_unless_it_is_said(
    file: Path, said: str, meant: WithoutCode | None
) -> None:
    change(file, 'without_code = "plain"', "")
    change(file, 'unverified = "plain"', said)
    assert load(file).calls.without_code == meant


def test_callers_without_a_code_are_served_only_for_a_purpose_that_admits_them(file: Path) -> None:
    change(file, 'without_code = "plain"', 'without_code = "purpose:report_move"')
    assert "[purposes.report_move] admit_unverified: expected true, since [calls] without_code" in fault(file)
    change(file, "admit_unverified = false", "admit_unverified = true")
    assert load(file).calls.without_code == ForPurpose("report_move")


def test_several_asterisks_have_names_and_trunks(file: Path) -> None:
    change(file, "\n[calls]\n", WEST)
    change(file, "[asterisk]\n", '[asterisk]\ntrunk = "to-main"\n')
    servers = load(file).servers
    assert {name: server.trunk for name, server in servers.items()} == {"main": "to-main", "west": "to-west"}
    assert servers["west"].password_file == file.parent / "ari-password-west"


def test_an_asterisk_that_the_others_cannot_reach_is_told(file: Path) -> None:
    change(file, "\n[calls]\n", WEST)
    assert "[asterisk] trunk: expected the PJSIP endpoint over which the other Asterisks reach this one" in fault(file)
    change(file, "[asterisk]\n", '[asterisk]\ntrunk = "to-main"\n')
    change(file, 'trunk = "to-west"\n', "")
    assert "[asterisk.others.west] trunk: expected the PJSIP endpoint" in fault(file)
    change(file, "[asterisk.others.west]", "[asterisk.others.main]")
    assert "[asterisk.others.main]: expected another name" in fault(file)


def test_paths_count_from_the_folder_of_the_file(file: Path) -> None:
    settings = load(file)
    assert settings.servers["main"].password_file == file.parent / "ari-password"
    assert settings.idcontact.decryption_key_files == (file.parent / "decryption-key.pem",)
    assert settings.idcontact.verification_key_files == (file.parent / "auth-digid.pem",)
    assert settings.sessions.store == Path("/var/lib/idbellen/idbellen.db")


@pytest.mark.parametrize(
    ("url", "meant", "shown"),
    [
        ("redis://a", RedisUrl((("a", 6379),)), "redis://a:6379/0"),
        ("redis://[::1]:7/", RedisUrl((("::1", 7),)), "redis://[::1]:7/0"),
        ("rediss://ann@a/3", RedisUrl((("a", 6379),), database=3, user="ann", tls=True), "rediss://a:6379/3"),
        ("redis://:p%40ss@a", RedisUrl((("a", 6379),), password="p@ss"), "redis://a:6379/0"),
        (
            "redis+sentinel://a,b:2/mymaster/1",
            RedisUrl((("a", 26379), ("b", 2)), "mymaster", 1),
            "redis+sentinel://a:26379,b:2/mymaster/1",
        ),
        (
            "rediss+sentinel://ann:word@a/mymaster",
            RedisUrl((("a", 26379),), "mymaster", user="ann", password="word", tls=True),
            "rediss+sentinel://a:26379/mymaster/0",
        ),
    ],
)
def test_the_store_may_be_in_redis(file: Path, url: str, meant: RedisUrl, shown: str) -> None:
    change(file, STORE, f'"{url}"')
    store = load(file).sessions.store
    assert store == meant
    assert str(store) == shown, "without the password"
    assert not meant.password or meant.password not in repr(store)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("tries = 3", "tries = 0", ":22: [calls] tries: expected greater than or equal to 1"),
        ("tries = 3", "tires = 3", ":22: [calls] tires: unknown: misspelt, or in the wrong table?"),
        ('"+31201234567"', '"020-123"', ":20: [calls] phone_number: expected a phone number of digits only"),
        ('unverified = "plain"', 'unverified = "bye"', "[calls] unverified: expected 'plain' or 'goodbye'"),
        ('"127.0.0.1:8081"', '"8081"', "[idcontact] listen: expected an address and a port"),
        ('"https://bellen.gemeente.example"', '"bellen"', "[citizen] url: expected a URL that begins with http"),
        (
            'without_code = "plain"',
            'without_code = "queue:taxes"',
            '[calls] without_code: expected "plain", "goodbye", "purpose:NAME" or "off"',
        ),
        (
            'without_code = "plain"',
            'without_code = "purpose:taxes"',
            "[calls] without_code: expected a purpose with a table: there is no [purposes.taxes]",
        ),
        ("[calls]\n", "[call]\n", "[call]: unknown"),
        ("[calls]\n", "[call]\n", "[calls]: missing"),
        ("phone_number", "# phone_number", "[calls] phone_number: missing"),
        ("[calls]\n", "[calls\n", "not TOML"),
        ('"Europe/Amsterdam"', '"Amsterdam"', "[calls] timezone: expected a time zone such as Europe/Amsterdam"),
        ('monday = "09:00-17:00"', 'monday = "9-17"', "[queues.residents] monday: expected hours such as 09:00-12:30"),
        ("2026-12-24 =", "2026-12-32 =", "[queues.residents.special] 2026-12-32: expected a valid date"),
        ('queue = "residents"', 'queue = "resident"', "[purposes.report_move] queue: expected a queue with a table"),
        ('# default_purpose = "report', 'default_purpose = "', "default_purpose: expected a purpose with a table"),
        ('# basic_user = "core"', 'basic_user = "core"', "[idcontact]: expected basic_user and basic_password_file"),
        ("allowed_hosts = []", 'allowed_hosts = ["https://a.example"]', "expected a host in lower case, with its port"),
        (STORE, '"redis://a,b/0"', "[sessions] store: expected redis://HOST:PORT/NUMBER, or for Sentinel"),
        (STORE, '"redis+sentinel://a"', "[sessions] store: expected redis://HOST:PORT/NUMBER, or for Sentinel"),
        (STORE, '"https://a"', "[sessions] store: expected redis://HOST:PORT/NUMBER, or for Sentinel"),
        (
            "# store_password_file",
            "store_password_file",
            "[sessions]: expected store_password_file only for a store in",
        ),
        ("# store_ca_file", "store_ca_file", "[sessions]: expected store_ca_file only for a store with a URL"),
    ],
)
def test_a_fault_is_told_with_name_place_and_expectation(file: Path, before: str, after: str, told: str) -> None:
    change(file, before, after)
    assert told in fault(file)
    assert str(file) in fault(file)


def test_the_environment_wins_and_is_named_when_wrong(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDBELLEN_CALLS__TRIES", "5")
    assert load(file).calls.tries == 5
    monkeypatch.setenv("IDBELLEN_CALLS__TRIES", "many")
    assert fault(file).startswith("IDBELLEN_CALLS__TRIES: [calls] tries: expected a valid integer")


def test_no_file(tmp_path: Path) -> None:
    assert "No such file" in fault(tmp_path / "none.toml")


def test_secrets_come_from_files(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(file)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        read_secret(file)
    file.write_text("word\n")
    assert read_secret(file) == "word"
    with pytest.raises(ConfigError, match="at least 32 characters"):
        read_master_key(file)
