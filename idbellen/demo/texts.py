"""What the demo pages say, in Dutch and English, and how a page is made: language, template, headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

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

# The first language is that of whoever asks for none of these.
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
        "step_choose": "U kiest waarover u wilt bellen, en hoe.",
        "step_login": "U logt in.",
        "step_call": "U krijgt een telefoonnummer en een code. Daarmee belt u ons.",
        "purpose_legend": "Waarover wilt u bellen?",
        "purpose_missing": "Kies eerst waarover u wilt bellen.",
        "next": "Verder",
        "other_purpose": "Kies een ander onderwerp",
        "channel_legend": "Hoe wilt u bellen?",
        "channel_page": "Bellen met een code",
        "channel_page_hint": "U ziet een nummer en een code. U toetst de code zelf in.",
        "channel_tel": "Meteen bellen",
        "channel_tel_hint": "Uw telefoon belt ons en toetst de code voor u in.",
        "login_legend": "Hoe wilt u inloggen?",
        "no_login": "Zonder inloggen",
        "no_login_hint": "Onze medewerker weet dan nog niet wie u bent en vraagt u meer.",
        "details": "Voor wie de demonstratie geeft",
        "details_hints": "Wat kunt u laten zien?",
        "backstage_link": "Achter de schermen bij {} ({})",
        "delivery": "Hoe komt het resultaat van het inloggen bij de telefoondienst?",
        "delivery_attr_url": "Meteen, van server naar server (attr_url)",
        "delivery_result": "Via de browser, in het webadres (result)",
        "delivery_start": "Eerst inloggen, dan pas start de telefoondienst (start)",
        "delivery_late": "Later: u levert het zelf af, achter de schermen (attr_url)",
        "call_title": "Bel ons nu",
        "call_lead": "Druk op de knop. Uw telefoon belt ons en toetst de code voor u in.",
        "call_button": "Bel met de code",
        "call_self": "Lukt dat niet? Bel het nummer dan zelf. Toets de code in als wij erom vragen.",
        "call_number": "Telefoonnummer",
        "call_code": "Code",
        "begin": "Terug naar het begin",
        "demo_phone": "Geen telefoon bij de hand? De demotelefoon belt dit nummer en toetst de code meteen in.",
        "demo_phone_call": "Bel met de demotelefoon",
        "demo_phone_hang_up": "Hang op",
        "call_address": "De telefoondienst gaf dit adres om te bellen. De core maakt daar deze pagina van:",
        "fell_back": (
            "U koos voor aflevering via de browser. Dat kan niet met zo'n adres. "
            "Het resultaat ging daarom van server naar server (attr_url)."
        ),
        "away_title": "Veilig bellen lukt nu niet",
        "away_plugin": "Onze telefoondienst werkt nu niet. Probeer het over een paar minuten opnieuw.",
        "away_auth": "De inlogdienst werkt nu niet. Probeer het over een paar minuten opnieuw.",
        "retry": "Probeer het opnieuw",
        "lost_title": "Deze pagina is niet meer geldig",
        "lost_text": "U kunt opnieuw beginnen.",
        "choose_title": "Log in met {}",
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
        "backstage_title": "Achter de schermen bij {}",
        "backstage_lead": "Dit zijn de laatste keren dat iemand hier inlogde. De nieuwste staat bovenaan.",
        "backstage_none": "Hier heeft nog niemand ingelogd.",
        "backstage_refresh": "Ververs deze pagina",
        "result_nobody": "Niemand gekozen",
        "result_made": "Antwoord gegeven om",
        "result_answer": "Antwoord van de burger",
        "result_shared": "Deelt de gegevens",
        "result_refused": "Weigert",
        "result_state": "Resultaat",
        "result_waits": "Wacht tot u het aflevert",
        "result_sending": "Is onderweg",
        "result_delivered": "Afgeleverd om {}",
        "result_browser": "Meegegeven aan de browser",
        "result_undelivered": "Niet afgeleverd",
        "result_reason": "Wat er misging",
        "result_deliver": "Nu afleveren",
        "feedback": "Wat de telefoondienst over deze sessie vertelde",
        "feedback_none": "Nog niets",
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
        "step_choose": "You choose what you want to call about, and how.",
        "step_login": "You log in.",
        "step_call": "You get a phone number and a code. With these, you call us.",
        "purpose_legend": "What do you want to call about?",
        "purpose_missing": "First choose what you want to call about.",
        "next": "Continue",
        "other_purpose": "Choose another subject",
        "channel_legend": "How do you want to call?",
        "channel_page": "Call with a code",
        "channel_page_hint": "You see a number and a code. You key in the code yourself.",
        "channel_tel": "Call right away",
        "channel_tel_hint": "Your phone calls us and keys in the code for you.",
        "login_legend": "How do you want to log in?",
        "no_login": "Without logging in",
        "no_login_hint": "Our staff do not know yet who you are then, and will ask you more.",
        "details": "For the person who gives the demonstration",
        "details_hints": "What can you show?",
        "backstage_link": "Behind the scenes at {} ({})",
        "delivery": "How does the result of the login reach the telephone service?",
        "delivery_attr_url": "At once, from server to server (attr_url)",
        "delivery_result": "Through the browser, in the web address (result)",
        "delivery_start": "The login comes first, then the telephone service starts (start)",
        "delivery_late": "Later: you deliver it yourself, behind the scenes (attr_url)",
        "call_title": "Call us now",
        "call_lead": "Press the button. Your phone calls us and keys in the code for you.",
        "call_button": "Call with the code",
        "call_self": "Does that not work? Then call the number yourself. Key in the code when we ask for it.",
        "call_number": "Phone number",
        "call_code": "Code",
        "begin": "Back to the beginning",
        "demo_phone": "No phone at hand? The demo phone calls this number and keys in the code right away.",
        "demo_phone_call": "Call with the demo phone",
        "demo_phone_hang_up": "Hang up",
        "call_address": "The telephone service gave this address to dial. The core turns it into this page:",
        "fell_back": (
            "You chose delivery through the browser. That is not possible with such an address. "
            "So the result went from server to server (attr_url)."
        ),
        "away_title": "Safe calling is not possible now",
        "away_plugin": "Our telephone service is not working now. Try again in a few minutes.",
        "away_auth": "The login service is not working now. Try again in a few minutes.",
        "retry": "Try again",
        "lost_title": "This page is no longer valid",
        "lost_text": "You can start again.",
        "choose_title": "Log in with {}",
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
        "backstage_title": "Behind the scenes at {}",
        "backstage_lead": "These are the last times that somebody logged in here. The newest is at the top.",
        "backstage_none": "Nobody has logged in here yet.",
        "backstage_refresh": "Refresh this page",
        "result_nobody": "Nobody chosen",
        "result_made": "Answer given at",
        "result_answer": "The citizen's answer",
        "result_shared": "Shares the information",
        "result_refused": "Refuses",
        "result_state": "Result",
        "result_waits": "Waits until you deliver it",
        "result_sending": "Is on its way",
        "result_delivered": "Delivered at {}",
        "result_browser": "Given to the browser",
        "result_undelivered": "Not delivered",
        "result_reason": "What went wrong",
        "result_deliver": "Deliver now",
        "feedback": "What the telephone service told about this session",
        "feedback_none": "Nothing yet",
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


@dataclass(frozen=True, slots=True)
class Brand:
    """Whose pages these are: the name on them, and a theme of the style sheet."""

    name: str
    theme: str


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
