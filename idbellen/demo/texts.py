"""What the demo pages say, in Dutch and English, and how a page is made: language, template, headers."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import AfterValidator
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
LANGUAGE_COOKIE = "demo-lang"
LARGEST_BODY = 64 * 1024
# A form here answers with a redirect to another origin, and form-action governs that too.
SECURITY_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; style-src 'self'; img-src 'self' data:; "
            "form-action 'self' http: https:; frame-ancestors 'none'; base-uri 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
)

# The first language is that of who asks for none of these.
TEXTS: Mapping[str, Mapping[str, str]] = {
    "nl": {
        "skip": "Naar de inhoud",
        "banner": "Demonstratie",
        "banner_text": "Deze website is een voorbeeld. De gemeente en de mensen bestaan niet.",
        "footer": "Dit is een demonstratie van idbellen.",
        "error_prefix": "Fout:",
        "municipality": "Gemeente Voorbeeld",
        "start_title": "Waarmee kunnen wij u helpen?",
        "start_lead": "Gaat uw vraag over uzelf? Kies dan voor Veilig bellen.",
        "safe_call": "Veilig bellen",
        "safe_call_text": "U logt eerst in. Daarna belt u ons. Onze medewerker weet dan zeker wie u bent.",
        "step_choose": "U kiest waarover u wilt bellen.",
        "step_login": "U logt in.",
        "step_call": "U ziet een telefoonnummer en een code. U belt het nummer en toetst de code in.",
        "purpose_legend": "Waarover wilt u bellen?",
        "purpose_missing": "Kies eerst waarover u wilt bellen.",
        "start_button": "Verder naar inloggen",
        "details": "Voor wie de demonstratie geeft",
        "delivery": "Hoe komt het resultaat van het inloggen bij de telefoondienst?",
        "delivery_attr_url": "Van server naar server (attr_url)",
        "delivery_result": "Via de browser, in het webadres (result)",
        "away_title": "Veilig bellen lukt nu niet",
        "away_plugin": "Onze telefoondienst werkt nu niet. Probeer het over een paar minuten opnieuw.",
        "away_auth": "De inlogdienst werkt nu niet. Probeer het over een paar minuten opnieuw.",
        "retry": "Probeer het opnieuw",
        "choose_title": "Log in met DemoID",
        "choose_lead": "De gemeente wil weten wie u bent. Bij deze demonstratie kiest u zelf wie u bent.",
        "choose_legend": "Wie bent u?",
        "choose_missing": "Kies eerst wie u bent.",
        "choose_button": "Inloggen",
        "cancel": "Stoppen",
        "consent_title": "Mag de gemeente deze gegevens zien?",
        "consent_lead": "U deelt deze gegevens met Gemeente Voorbeeld. De medewerker aan de telefoon ziet ze.",
        "consent_nothing": "De gemeente vraagt geen gegevens. Zij hoort alleen dat u bent ingelogd.",
        "consent_yes": "Ja, deel deze gegevens",
        "consent_no": "Nee",
        "consent_other": "Kies iemand anders",
        "undelivered_title": "Versturen is niet gelukt",
        "undelivered_text": "Wij konden uw antwoord niet naar de gemeente sturen. Probeer het opnieuw.",
        "gone_title": "Deze inlogpagina is niet meer geldig",
        "gone_text": "U kunt deze pagina maar één keer gebruiken. Begin opnieuw op de site van de gemeente.",
        "attribute_fullname": "Naam",
        "attribute_bsn": "Burgerservicenummer (BSN)",
        "attribute_birthdate": "Geboortedatum",
        "attribute_address": "Adres",
    },
    "en": {
        "skip": "Skip to content",
        "banner": "Demonstration",
        "banner_text": "This website is an example. The municipality and the people are made up.",
        "footer": "This is a demonstration of idbellen.",
        "error_prefix": "Error:",
        "municipality": "Municipality of Voorbeeld",
        "start_title": "How can we help you?",
        "start_lead": "Is your question about yourself? Then choose Safe calling.",
        "safe_call": "Safe calling",
        "safe_call_text": "You log in first. Then you call us. Our staff then know for certain who you are.",
        "step_choose": "You choose what you want to call about.",
        "step_login": "You log in.",
        "step_call": "You see a phone number and a code. You call the number and key in the code.",
        "purpose_legend": "What do you want to call about?",
        "purpose_missing": "First choose what you want to call about.",
        "start_button": "Continue to log in",
        "details": "For the person who gives the demonstration",
        "delivery": "How does the result of the login reach the telephone service?",
        "delivery_attr_url": "From server to server (attr_url)",
        "delivery_result": "Through the browser, in the web address (result)",
        "away_title": "Safe calling is not possible now",
        "away_plugin": "Our telephone service is not working now. Try again in a few minutes.",
        "away_auth": "The login service is not working now. Try again in a few minutes.",
        "retry": "Try again",
        "choose_title": "Log in with DemoID",
        "choose_lead": "The municipality wants to know who you are. In this demonstration, you decide.",
        "choose_legend": "Who are you?",
        "choose_missing": "First choose who you are.",
        "choose_button": "Log in",
        "cancel": "Stop",
        "consent_title": "May the municipality see this information?",
        "consent_lead": "You share this with the Municipality of Voorbeeld. The person on the phone sees it.",
        "consent_nothing": "The municipality asks for no information. It only hears that you logged in.",
        "consent_yes": "Yes, share this information",
        "consent_no": "No",
        "consent_other": "Choose someone else",
        "undelivered_title": "Sending did not work",
        "undelivered_text": "We could not send your answer to the municipality. Please try again.",
        "gone_title": "This login page is no longer valid",
        "gone_text": "You can use a login page only once. Start again on the municipality's website.",
        "attribute_fullname": "Name",
        "attribute_bsn": "Citizen service number (BSN)",
        "attribute_birthdate": "Date of birth",
        "attribute_address": "Address",
    },
}
LANGUAGE_NAMES = MappingProxyType({"nl": "Nederlands", "en": "English"})

_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _web_address(value: str) -> str:
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError("not written as an address")
    url = URL(value)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("not an http or https address")
    return value


WebAddress = Annotated[str, AfterValidator(_web_address)]
"""An absolute http or https address in a message, kept exactly as it was written."""


def language_of(request: web.BaseRequest) -> str:
    """Give the language of the answer: asked for in the address, else in the cookie, else by the browser."""
    for wish in (request.query.get("lang"), request.cookies.get(LANGUAGE_COOKIE)):
        if wish is not None and wish in TEXTS:
            return wish
    return _accepted(request.headers.get("Accept-Language", ""))


def _accepted(header: str) -> str:
    default = next(iter(TEXTS))
    best, best_weight = default, 0.0
    for item in header.split(","):
        tag, _, weight_text = item.partition(";")
        name, _, number = weight_text.strip().partition("=")
        try:
            weight = float(number) if name.strip().lower() == "q" else 1.0
        except ValueError:
            continue
        language = tag.strip().lower().partition("-")[0]
        if language in TEXTS and weight > best_weight:
            best, best_weight = language, weight
    return best


def attribute_label(language: str, name: str) -> str:
    """Give what people call an attribute; one that the demo does not know keeps its own name."""
    return TEXTS[language].get(f"attribute_{name}", name)


def page(
    request: web.Request, template: str, *, status: int = 200, here: str | None = None, **values: object
) -> web.Response:
    """Make a page from a template. ``here``: where its language links go; without it, to this very page."""
    language = language_of(request)
    html = _templates.get_template(template).render(
        text=TEXTS[language],
        language=language,
        other_languages=[(tag, name) for tag, name in LANGUAGE_NAMES.items() if tag != language],
        here=here or request.path,
        **values,
    )
    response = web.Response(text=html, content_type="text/html", status=status)
    if request.query.get("lang") == language:
        response.set_cookie(LANGUAGE_COOKIE, language, httponly=True, samesite="Lax")
    return response


async def form_field(request: web.Request, name: str) -> str:
    """Give one text field of the form that was sent; empty when it is not there."""
    value = (await request.post()).get(name)
    return value if isinstance(value, str) else ""


def new_app() -> web.Application:
    """Make an application with the stylesheet and, on every answer, the security headers."""
    app = web.Application(client_max_size=LARGEST_BODY)
    app.router.add_static("/static", HERE / "static")
    app.on_response_prepare.append(_secure)
    return app


async def _secure(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)
