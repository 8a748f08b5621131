"""Pages: templates, translations and the languages that a browser asks for."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from aiohttp import web
from babel import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

from idbellen.domain.languages import LANGUAGES

if TYPE_CHECKING:
    from idbellen.domain.languages import Language

HERE = Path(__file__).parent
STATIC = HERE / "static"


@cache
def _translations(language: Language) -> NullTranslations:
    # The texts in code and templates are English.
    if language == "en":
        return NullTranslations()
    compiled = io.BytesIO()
    with (HERE / "locales" / f"{language}.po").open("rb") as catalogue:
        write_mo(compiled, read_po(catalogue, locale=language, abort_invalid=True))
    compiled.seek(0)
    return Translations(compiled)


@cache
def _environment(language: Language) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.install_gettext_translations(_translations(language), newstyle=True)  # type: ignore[attr-defined]
    environment.globals |= {"language": language, "languages": {tag: facts.name for tag, facts in LANGUAGES.items()}}
    return environment


class Pages:
    """Renders the templates of this package, which all sites share."""

    def load(self, language: Language, *templates: str) -> None:
        """Compile templates now: it would hold everybody else up when the first page is asked for."""
        for template in templates:
            _environment(language).get_template(template)

    def text(self, template: str, language: Language, **values: Any) -> str:  # noqa: ANN401
        """Give a page, or a part of one, as text."""
        return _environment(language).get_template(template).render(values)

    def render(self, template: str, language: Language, *, status: int = 200, **values: Any) -> web.Response:  # noqa: ANN401
        """Give a page as an answer."""
        return web.Response(text=self.text(template, language, **values), content_type="text/html", status=status)


def wanted_language(request: web.Request) -> Language | None:
    """Give the language that an address asks for with ``?lang=``, if it is one we have."""
    wanted = request.query.get("lang")
    return next((language for language in LANGUAGES if language == wanted), None)


def preferred_language(request: web.Request, default: Language) -> Language:
    """Give the language that the browser prefers, of those we have."""
    wanted = [part.split(";")[0].strip() for part in request.headers.get("Accept-Language", "").split(",")]
    found = negotiate_locale([tag for tag in wanted if tag], list(LANGUAGES), sep="-")
    return next((language for language in LANGUAGES if language == found), default)
