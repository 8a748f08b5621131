"""Auth results as an authentication plugin makes them: signed for the truth, encrypted for one reader.

The format is that of ID Contact (its repositories ``id-contact-jwt`` and ``docs``). Written apart from the
code with which idbellen opens tokens, so that a misunderstanding there does not go unnoticed here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joserfc import jwe, jws
from joserfc.jwk import ECKey, RSAKey

if TYPE_CHECKING:
    from collections.abc import Mapping

Key = RSAKey | ECKey

LIFETIME_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a generation of the protocol writes an auth result: its words, its keys, its algorithms."""

    name: str
    subject: str
    success: str
    key_type: type[Key]
    signature: str
    key_encryption: str


ID_CONTACT = Dialect("ID Contact", "id-contact-attributes", "succes", RSAKey, "RS256", "RSA-OAEP")
VERDER_HELPEN = Dialect("Verder Helpen", "verder-helpen-attributes", "success", ECKey, "ES256", "ECDH-ES")


def auth_result(  # noqa: PLR0913 - each is a part of the format, and all but one go by name
    identity_attributes: Mapping[str, str] | None,
    *,
    status: str,
    subject: str,
    signing_key: Key,
    encryption_key: Key,
    now: float,
    signature: str = "RS256",
    key_encryption: str = "RSA-OAEP",
    content_encryption: str = "A128CBC-HS256",
    session_url: str | None = None,
    issuer: str | None = None,
) -> str:
    """Make one auth result, a compact JWE around a compact JWS, valid for five minutes from ``now``.

    ``identity_attributes``, ``session_url`` and ``issuer``: None leaves the claim out, as on a refusal. ``status``:
    ``succes`` (ID Contact), ``success`` (Verder Helpen) or ``failed``; not checked, nor is ``subject``, for tests need
    wrong ones too. ``signing_key`` is private, ``encryption_key`` the reader's public one. For EC keys give
    ``signature`` ES256 and ``key_encryption`` ECDH-ES.
    """
    issued = int(now)
    claims: dict[str, Any] = {
        "sub": subject,
        "iat": issued,
        "exp": issued + LIFETIME_SECONDS,
        "status": status,
    }
    if identity_attributes is not None:
        claims["attributes"] = dict(identity_attributes)
    if session_url is not None:
        claims["session_url"] = session_url
    if issuer is not None:
        claims["iss"] = issuer
    signed = jws.serialize_compact(
        {"typ": "JWT", "alg": signature}, json.dumps(claims), signing_key, algorithms=[signature]
    )
    return jwe.encrypt_compact(
        {"typ": "JWT", "cty": "JWT", "enc": content_encryption, "alg": key_encryption},
        json.dumps({"njwt": signed}),
        encryption_key,
        algorithms=[key_encryption, content_encryption],
    )
