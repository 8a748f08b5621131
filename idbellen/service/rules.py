"""From the configuration to the rules of each part: the one place that knows both."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from idbellen.calls.desk import DeskRules
from idbellen.calls.office import CallRules, PurposeRules
from idbellen.calls.staff import StaffRules
from idbellen.domain.digits import EntryRules
from idbellen.domain.hours import OpeningHours, parse_day
from idbellen.domain.idcontact import TokenOpener, load_key
from idbellen.domain.numbers import FORMS, in_form
from idbellen.domain.queueing import QueueRules, Queues, Strategy
from idbellen.service.config import Purpose, Queue, Settings, read_pem, read_secret
from idbellen.web.credentials import Credentials, basic, bearer
from idbellen.web.dashboard.page import PurposeView
from idbellen.web.purposes import Purpose as WebPurpose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

    from idbellen.domain.idcontact import Key
    from idbellen.domain.ids import QueueName
    from idbellen.domain.languages import Language
    from idbellen.service.config import IdContact, LinkPhone

MASKED_BY_DEFAULT = "bsn"


class StartError(Exception):
    """idbellen cannot start; the message says what to do."""


class TakenOverError(StartError):
    """Another process took over our Stasis application: to start again would only take it back, and so on."""


def call_rules(settings: Settings) -> CallRules:
    """Give the rules of calls that the configuration asks for."""
    calls = settings.calls
    entry = EntryRules(
        length=settings.sessions.code_digits,
        first_digit=calls.first_digit_seconds,
        between_digits=calls.between_digits_seconds,
        overall=calls.overall_seconds,
        without_code=calls.without_code is not None,
    )
    return CallRules(
        entry=entry,
        tries=calls.tries,
        unverified=calls.unverified,
        without_code=calls.without_code,
        late=calls.late_seconds,
        language=calls.language,
        active_moments=frozenset(settings.feedback.moments),
        active_every=60.0 * settings.feedback.every_minutes,
        outside=partial(outside_endpoint, calls.outside_endpoint or ""),
        purposes={
            tag: PurposeRules(purpose.queue, purpose.admit_unverified, purpose.priority)
            for tag, purpose in settings.purposes.items()
        },
    )


def outside_endpoint(template: str, number: str) -> str:
    """Give the endpoint over which an outside number is rung, with the number in the form that the carrier wants."""
    for form in FORMS:
        template = template.replace(f"{{{form}}}", in_form(number, form))
    return template


def staff_rules(settings: Settings) -> StaffRules:
    """Give the rules of the staff that the configuration asks for."""
    return StaffRules(
        grace=settings.dashboard.grace_seconds,
        extension=settings.dashboard.extension_seconds,
        rest=settings.calls.rest_seconds,
        most_missed=settings.calls.missed_offers,
    )


def desk_rules(settings: Settings) -> DeskRules:
    """Give the rules of the queues: of those with a table, and of those that a purpose names."""
    names = dict.fromkeys([*settings.queues, *(purpose.queue for purpose in settings.purposes.values())])
    return DeskRules(
        Queues({name: _queue_rules(settings, settings.queues.get(name, Queue())) for name in names}),
        ring=settings.calls.ring_seconds,
        numbers=settings.calls.outside_endpoint is not None,
    )


def _queue_rules(settings: Settings, queue: Queue) -> QueueRules:
    return QueueRules(
        strategy=Strategy(queue.strategy),
        verified_first=queue.verified_first,
        wrap_up=queue.wrap_up_seconds,
        longest=queue.longest_wait_seconds,
        length=queue.most_waiting,
        announce=queue.announce_seconds,
        comfort=queue.comfort_seconds,
        music=queue.music_class or settings.calls.music_class,
        answered_within=queue.answer_within_seconds,
        ways_out=queue.ways_out,
    )


def token_opener(settings: Settings) -> TokenOpener:
    """Load the keys for auth results.

    Raises:
        ConfigError: a key file cannot be read.
        StartError: it holds something else.

    """
    own = settings.idcontact
    loaded = {path: load_key_file(path) for path in (*own.decryption_key_files, *own.verification_key_files)}
    for path in own.decryption_key_files:
        if not loaded[path].is_private:
            raise StartError(f"{path}: expected a private key")
    return TokenOpener(
        [loaded[path] for path in own.decryption_key_files],
        [loaded[path] for path in own.verification_key_files],
        own.leeway_seconds,
    )


def load_key_file(path: Path) -> Key:
    """Load one key for auth results.

    Raises:
        ConfigError: the file cannot be read.
        StartError: it holds something else, or a key that is of no use.

    """
    try:
        return load_key(read_pem(path))
    except ValueError as fault:
        raise StartError(f"{path}: {fault}") from None


def opening_hours(settings: Settings, queue: QueueName) -> OpeningHours:
    """Give the hours of a queue; one without a table, or without any day in it, is always open."""
    timezone = ZoneInfo(settings.calls.timezone)
    own = settings.queues.get(queue)
    if own is None or not (any(own.week) or own.special):
        return OpeningHours.always(timezone)
    week = {number: parse_day(text) for number, text in enumerate(own.week) if text}
    if not any(own.week):
        # Only the days that differ from "always open" are written down.
        week = dict(OpeningHours.always(timezone).week)
    return OpeningHours(week, {day: parse_day(text) for day, text in own.special.items()}, timezone)


def web_purposes(settings: Settings) -> dict[str, WebPurpose]:
    """Give what the core and the citizens need to know of each purpose."""
    return {
        tag: WebPurpose(
            titles=purpose.title,
            attributes=purpose.attributes,
            phone_number=purpose.phone_number or settings.calls.phone_number,
            hours=opening_hours(settings, purpose.queue),
            admit_unverified=purpose.admit_unverified,
            client_url=purpose.client_url or settings.idcontact.client_url,
        )
        for tag, purpose in settings.purposes.items()
    }


def credentials(settings: Settings) -> Credentials:
    """Load what the core must show, if anything; :exc:`ConfigError` if a file cannot be read."""
    return accepted_credentials(settings.idcontact, settings.idcontact.protect)


def accepted_credentials(own: IdContact | LinkPhone, protect: Literal["start", "all"]) -> Credentials:
    """Load what a caller of one of our addresses must show; :exc:`ConfigError` if a file cannot be read."""
    accepted = []
    if own.basic_user is not None and own.basic_password_file is not None:
        accepted.append(basic(own.basic_user, read_secret(own.basic_password_file)))
    if own.bearer_token_file is not None:
        accepted.append(bearer(read_secret(own.bearer_token_file)))
    return Credentials(accepted, protect)


def queue_titles(settings: Settings, language: Language) -> dict[QueueName, str]:
    """Give the titles of the queues that have one."""
    return {name: queue.title[language] for name, queue in settings.queues.items() if queue.title}


def masked(settings: Settings) -> Iterator[str]:
    """Give the names of the attributes that are hidden until an agent asks for them."""
    # A BSN is masked unless the configuration says that it is not; another attribute is if it says so.
    for name in {MASKED_BY_DEFAULT, *settings.attributes}:
        own = settings.attributes.get(name)
        if name == MASKED_BY_DEFAULT if own is None or own.masked is None else own.masked:
            yield name


def purpose_view(settings: Settings, purpose: Purpose, language: Language) -> PurposeView:
    """Give what agents see of a purpose."""
    labels = {
        name: settings.attributes[name].label[language] if name in settings.attributes else name
        for name in purpose.attributes
    }
    return PurposeView(purpose.title[language], labels)
