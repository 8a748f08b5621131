"""Messages of the ID Contact protocol (and of its successor Verder Helpen) that a communication plugin gets.

An auth result travels as a compact JWE around JSON ``{"njwt": "<compact JWS>"}``. Its ``exp`` guards the
delivery, so it is checked on receipt and not again when an agent sees the result.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from joserfc import jwe, jws
from joserfc.errors import DecodeError, JoseError
from joserfc.jwk import ECKey, RSAKey

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_TOKEN = 64 * 1024
CONTENT_ENCRYPTION = "A128CBC-HS256"
SUBJECTS = frozenset({"id-contact-attributes", "verder-helpen-attributes"})

Key = RSAKey | ECKey
# Pinned: the key's kind decides the algorithm, never the token.
_KEY_ENCRYPTION = {"RSA": "RSA-OAEP", "EC": "ECDH-ES"}
_SIGNATURE = {"RSA": "RS256", "EC": "ES256"}


class AuthStatus(enum.Enum):
    """Whether the citizen authenticated."""

    SUCCESS = "success"
    FAILED = "failed"


# ID Contact writes "succes", Verder Helpen "success".
_STATUSES = {"succes": AuthStatus.SUCCESS, "success": AuthStatus.SUCCESS, "failed": AuthStatus.FAILED}


@dataclass(frozen=True, slots=True)
class AuthResult:
    """A verified auth result. The attributes are personal data and never show in a representation."""

    status: AuthStatus
    attributes: dict[str, str] = field(repr=False)


class TokenRefusedError(Exception):
    """A token is not a valid auth result; the message gives the reason and nothing of its content."""


def load_key(pem: bytes) -> Key:
    """Read an RSA or EC key, private or public, from PEM.

    Raises:
        ValueError: it is neither.

    """
    for kind in (RSAKey, ECKey):
        try:
            return kind.import_key(pem)
        except (ValueError, TypeError, JoseError):
            continue
    raise ValueError("neither an RSA nor an EC key in PEM")


@dataclass(frozen=True, slots=True)
class TokenOpener:
    """Opens tokens with our decryption key and the keys of the auth plugins; ``leeway`` in seconds."""

    decryption_key: Key
    verification_keys: Sequence[Key]
    leeway: float = 30.0

    def receive(self, token: str, now: float) -> AuthResult:
        """Open and verify a token as it comes in, its times included; ``now`` in epoch seconds.

        Raises:
            TokenRefusedError: it is not a valid auth result at this moment.

        """
        claims = self._verified_claims(token)
        expires, issued = _time(claims, "exp"), _time(claims, "iat")
        if expires + self.leeway < now:
            raise TokenRefusedError("expired")
        if issued - self.leeway > now:
            raise TokenRefusedError("issued in the future")
        return _auth_result(claims)

    def reopen(self, token: str) -> AuthResult:
        """Open a stored token that :meth:`receive` accepted before: the signature again, the times not."""
        return _auth_result(self._verified_claims(token))

    def _verified_claims(self, token: str) -> dict[str, Any]:
        if len(token) > LARGEST_TOKEN:
            raise TokenRefusedError(f"larger than {LARGEST_TOKEN} bytes")
        algorithm = _KEY_ENCRYPTION[self.decryption_key.key_type]
        try:
            envelope = jwe.decrypt_compact(
                token, self.decryption_key, algorithms=[algorithm, CONTENT_ENCRYPTION]
            )
            inner = json.loads(envelope.plaintext or b"")["njwt"]
        except (JoseError, ValueError, KeyError, TypeError) as fault:
            raise TokenRefusedError(f"not encrypted for us ({type(fault).__name__})") from None
        if not isinstance(inner, str):
            raise TokenRefusedError("no signed token inside")
        for key in self.verification_keys:
            try:
                signed = jws.deserialize_compact(inner, key, algorithms=[_SIGNATURE[key.key_type]])
                claims = json.loads(signed.payload)
            except (DecodeError, ValueError) as fault:
                raise TokenRefusedError(f"no signed JSON inside ({type(fault).__name__})") from None
            except JoseError:
                continue
            if isinstance(claims, dict):
                return claims
            raise TokenRefusedError("claims are not an object")
        raise TokenRefusedError("not signed by a known auth plugin with a pinned algorithm")


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefusedError(f"claim {name} is missing or not a number")
    return value


def _auth_result(claims: dict[str, Any]) -> AuthResult:
    if claims.get("sub") not in SUBJECTS:
        raise TokenRefusedError("claim sub is not that of an auth result")
    raw_status = claims.get("status")
    status = _STATUSES.get(raw_status) if isinstance(raw_status, str) else None
    if status is None:
        raise TokenRefusedError("claim status is unknown")
    attributes = claims.get("attributes")
    if attributes is None and status is AuthStatus.FAILED:
        attributes = {}
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        raise TokenRefusedError("claim attributes is not an object of strings")
    return AuthResult(status, attributes)
