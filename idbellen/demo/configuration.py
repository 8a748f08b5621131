"""What the demo's idbellen is configured with: its purposes and its keys, and those of the authentication plugins."""

from __future__ import annotations

import datetime as dt
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from idbellen import keys
from idbellen.demo.auth import DEMOID, VOORBEELDPAS, AuthSettings
from idbellen.demo.core import LoginMethod, Purpose
from idbellen.demo.tokens import ID_CONTACT, VERDER_HELPEN, Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from idbellen.demo.ports import Ports
    from idbellen.demo.texts import Brand

PHONE_NUMBER = "+31201234567"
TIMEZONE = "Europe/Amsterdam"
# Long enough to go to the page behind the scenes and deliver a late result there.
LATE_SECONDS = 60

PURPOSES = (
    Purpose("report_move", "Verhuizing doorgeven", "Report a move", ("fullname", "bsn", "birthdate", "address")),
    Purpose("request_permit", "Parkeervergunning aanvragen", "Request a parking permit", ("fullname", "address")),
    Purpose("benefits", "Vraag over uw uitkering", "Question about your benefit", ("fullname", "bsn", "birthdate")),
    Purpose(
        "street",
        "Melding over uw straat",
        "Report about your street",
        ("fullname", "address"),
        admit_unverified=True,
        hint=(
            "Hier mag iemand ook bellen zonder inloggen, of terwijl het resultaat nog komt.",
            "Here people may also call without logging in, or while their result is still to come.",
        ),
    ),
    Purpose(
        "wedding",
        "Trouwen",
        "Getting married",
        ("fullname", "birthdate"),
        hint=(
            "Dit loket is vandaag dicht. Het is alleen open op maandag van 9.00 tot 9.30 uur.",
            "This desk is closed today. It is open on Mondays from 9:00 to 9:30 only.",
        ),
    ),
)
# By purpose; the titles by queue. All are always open, but for weddings.
QUEUES = {
    "report_move": "residents",
    "request_permit": "residents",
    "benefits": "benefits",
    "street": "street",
    "wedding": "weddings",
}
QUEUE_TITLES = {
    "residents": ("Burgerzaken", "Residents"),
    "benefits": ("Werk en inkomen", "Work and income"),
    "street": ("Openbare ruimte", "Public space"),
    "weddings": ("Trouwen", "Weddings"),
}
PAUSE_REASONS = {"lunch": ("Lunch", "Lunch"), "meeting": ("Overleg", "Meeting"), "training": ("Training", "Training")}
WRAP_UP_SECONDS = 15
LABELS = {
    "fullname": ("Naam", "Name"),
    "bsn": ("BSN", "BSN"),
    "birthdate": ("Geboortedatum", "Date of birth"),
    "address": ("Adres", "Address"),
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """An authentication plugin of the demo: brand and dialect, the name of its port, the folders of keys.

    ``keys`` are those with which it signs, ``our_keys`` those of idbellen for which it encrypts.
    """

    brand: Brand
    dialect: Dialect
    port: str
    keys: str
    our_keys: str

    @property
    def public_key(self) -> str:
        """The file in which idbellen finds the key with which it verifies."""
        return f"{self.brand.theme}.pub.pem"

    def login_method(self, ports: Ports) -> LoginMethod:
        """Give how the core knows it."""
        return LoginMethod(self.brand.theme, self.brand.name, ports.url(self.port), self.dialect.name)

    def auth_settings(self, home: Path, ports: Ports) -> AuthSettings:
        """Give how its application is set up; makes the keys that are not in the demo's folder yet."""
        for folder in (home / self.keys, home / self.our_keys):
            if not (folder / "decryption-key.pem").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                keys.generate(folder, "rsa" if self.dialect is ID_CONTACT else "ec")
        # As its operator would send it to us.
        (home / self.public_key).write_text((home / self.keys / "encryption-key.pub.pem").read_text())
        return AuthSettings(
            ports.url(self.port),
            (home / self.keys / "decryption-key.pem").read_text(),
            (home / self.our_keys / "encryption-key.pub.pem").read_text(),
            self.brand,
            self.dialect,
        )


PLUGINS = (
    Plugin(DEMOID, ID_CONTACT, "authentication", "auth-keys", "keys"),
    Plugin(VOORBEELDPAS, VERDER_HELPEN, "second authentication", "second-auth-keys", "second-keys"),
)


def configuration(ports: Ports) -> str:
    """Write the configuration of the demo's idbellen, which lies beside its keys."""
    hosts = [f"127.0.0.1:{ports.named[plugin.port]}" for plugin in PLUGINS]
    lines = [
        "# Made by 'make run'. Every key is explained in idbellen.example.toml.",
        "[asterisk]",
        f'url = "{ports.url("ARI")}/ari"',
        'password_file = "ari-password"',
        "[calls]",
        f'phone_number = "{PHONE_NUMBER}"',
        f'timezone = "{TIMEZONE}"',
        f"late_seconds = {LATE_SECONDS}",
        # The demo's Asterisk has no plain queue to send callers to.
        'unverified = "goodbye"',
        "[sessions]",
        'store = "idbellen.db"',
        'master_key_file = "keys/master-key"',
        "[idcontact]",
        f'listen = "127.0.0.1:{ports.named["ID Contact interface"]}"',
        f'url = "{ports.url("ID Contact interface")}"',
        f"decryption_key_files = {_array(f'{plugin.our_keys}/decryption-key.pem' for plugin in PLUGINS)}",
        f"verification_key_files = {_array(plugin.public_key for plugin in PLUGINS)}",
        "[feedback]",
        f"allowed_hosts = {_array(hosts)}",
        "[citizen]",
        f'listen = "127.0.0.1:{ports.named["citizen page"]}"',
        f'url = "{ports.url("citizen page")}"',
        'name = { nl = "Gemeente Voorbeeld", en = "Municipality of Voorbeeld" }',
        f'begin_url = "{ports.url("municipality")}/"',
        f'demo_phone_url = "{ports.url("municipality")}/phone"',
        "[dashboard]",
        f'listen = "127.0.0.1:{ports.named["dashboard"]}"',
        f'url = "{ports.url("dashboard")}"',
        "[dashboard.pause_reasons]",
        *(_texts(word, titles) for word, titles in PAUSE_REASONS.items()),
        "[supervisors]",
        'monitor = ["listen", "whisper", "barge"]',
    ]
    for queue, titles in QUEUE_TITLES.items():
        lines += [f"[queues.{queue}]", _texts("title", titles), f"wrap_up_seconds = {WRAP_UP_SECONDS}"]
        if queue == "weddings":
            # Also on a Monday morning it can be shown what happens outside opening hours.
            today = dt.datetime.now(ZoneInfo(TIMEZONE)).date()
            lines += ['monday = "09:00-09:30"', f'special.{today} = "closed"']
    for purpose in PURPOSES:
        lines += [
            f"[purposes.{purpose.tag}]",
            f'title.nl = "{purpose.title_nl}"',
            f'title.en = "{purpose.title_en}"',
            f"attributes = {_array(purpose.attributes)}",
            f"admit_unverified = {str(purpose.admit_unverified).lower()}",
            f'queue = "{QUEUES[purpose.tag]}"',
        ]
    lines.append("[attributes]")
    lines += [_texts(name, labels) for name, labels in LABELS.items()]
    for plugin in PLUGINS:
        lines += [f"[methods.{plugin.brand.theme}]", f'nl = "{plugin.brand.name}"', f'en = "{plugin.brand.name}"']
    return "\n".join(lines) + "\n"


def _texts(key: str, texts: tuple[str, str]) -> str:
    dutch, english = texts
    return f'{key} = {{ nl = "{dutch}", en = "{english}" }}'


def _array(values: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"
