"""Messages of the ID Contact protocol (and of its successor Verder Helpen) that a communication plugin gets.

An auth result travels as a compact JWE around JSON ``{"njwt": "<compact JWS>"}``. It is verified once, on receipt:
its ``exp`` guards the delivery, not the time that a caller waits.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import re
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from joserfc import jwe, jws
from joserfc.errors import DecodeError, JoseError, SecurityWarning, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, RSAKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

LARGEST_TOKEN = 64 * 1024
CURVE = "P-256"
LEAST_RSA_BITS = 2048
CONTENT_ENCRYPTION = "A128CBC-HS256"
# No auth plugin vouches for longer; what is far beyond it is most often in milliseconds.
FARTHEST_SECONDS = 24 * 3600.0
SUBJECTS = frozenset({"id-contact-attributes", "verder-helpen-attributes"})
# What names of purposes and attributes look like; what does not may be anything, also what somebody is called.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,63}")
MOST_NAMES = 20

Key = RSAKey | ECKey
# Pinned: the key's kind decides the algorithm, never the token.
_KEY_ENCRYPTION = {"RSA": "RSA-OAEP", "EC": "ECDH-ES"}
# What header fields and contents of other kinds than expected lead to, in joserfc too: anybody can encrypt for us.
_ODD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_SIGNATURE = {"RSA": "RS256", "EC": "ES256"}


class AuthStatus(enum.Enum):
    """Whether the citizen authenticated."""

    SUCCESS = "success"
    FAILED = "failed"
    NOT_TRIED = "not tried"  # a caller without a code; no auth plugin says so


# ID Contact writes "succes", Verder Helpen "success".
_STATUSES = {"succes": AuthStatus.SUCCESS, "success": AuthStatus.SUCCESS, "failed": AuthStatus.FAILED}


@dataclass(frozen=True, slots=True)
class AuthResult:
    """A verified auth result. The attributes are personal data and never show in a representation.

    ``session_url``: where the auth plugin wants to be told that the session is in use, and when it has ended;
    ``issuer``: what the auth plugin calls itself in what it signed (RFC 7519, 4.1.1), if it does.
    """

    status: AuthStatus
    attributes: dict[str, str] = field(repr=False)
    session_url: str | None = field(default=None, repr=False)
    issuer: str | None = None

    def with_only(self, names: Collection[str]) -> AuthResult:
        """Drop the attributes that are not named."""
        return replace(self, attributes={name: text for name, text in self.attributes.items() if name in names})

    def missing(self, expected: Iterable[str]) -> list[str]:
        """Give which of the expected attributes did not come, in their order; none when nobody logged in."""
        if self.status is AuthStatus.FAILED:
            return []
        return [name for name in expected if name not in self.attributes]


@dataclass(frozen=True, slots=True)
class Received:
    """An auth result as it was received, and by what the same token is known when it comes again.

    ``identity`` is a digest of the token. What is signed inside would not do: it is the same to the letter for two
    results of one second with the same attributes. ``until``: after that (epoch seconds) it is refused as expired.
    ``came``: the names of all attributes in it, also of those that the purpose does not keep.
    """

    result: AuthResult
    identity: str = field(repr=False)
    until: float
    came: Collection[str] = field(default=(), repr=False)


class Admission(enum.Enum):
    """What becomes of a caller with the right code."""

    ADMIT = "admit"
    WAIT = "wait"  # an auth result may still come
    REFUSE = "refuse"


def admission(result: AuthResult | None, *, admit_unverified: bool) -> Admission:
    """Decide about a caller by the auth result, and by whether the purpose lets unverified callers in."""
    if admit_unverified or (result is not None and result.status is AuthStatus.SUCCESS):
        return Admission.ADMIT
    return Admission.WAIT if result is None else Admission.REFUSE


class TokenRefusedError(Exception):
    """A token is not a valid auth result; the message gives the reason and nothing of its content."""


def loggable(names: Iterable[str]) -> str:
    """Give names that somebody sent as a log may hold them; what does not look like a name is only counted."""
    every = sorted(names)
    told = [name for name in every if _NAME.fullmatch(name)][:MOST_NAMES]
    more = len(every) - len(told)
    return ",".join([*told, *([f"and {more} more"] if more else [])]) or "none"


def session_url_host(session_url: str) -> str | None:
    """Give the host of a ``session_url`` as a configuration names it: with its port unless that is the usual one.

    None when it is no plain http or https address.
    """
    try:
        parts = urlsplit(session_url)
        port = parts.port
    except ValueError:
        return None
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    if usual is None or not parts.hostname or "@" in parts.netloc:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host if port in (None, usual) else f"{host}:{port}"


def feedback_address(session_url: str, kind: str) -> str:
    """Give the address to which feedback of a kind is posted; all else in the ``session_url`` stays as it is."""
    parts = urlsplit(session_url)
    query = f"{parts.query}&type={kind}" if parts.query else f"type={kind}"
    return parts._replace(query=query, fragment="").geturl()


def load_key(pem: bytes) -> Key:
    """Read an RSA or EC key, private or public, from PEM.

    Raises:
        ValueError: it is neither, or one that the pinned algorithms cannot use or that is too weak.

    """
    for kind in (RSAKey, ECKey):
        try:
            with warnings.catch_warnings():
                # A weak key is refused below.
                warnings.simplefilter("ignore", SecurityWarning)
                key = kind.import_key(pem)
        except (ValueError, TypeError, JoseError):
            continue
        if isinstance(key, ECKey) and key.curve_name != CURVE:
            raise ValueError(f"an EC key on curve {key.curve_name}: expected {CURVE}")
        if isinstance(key, RSAKey) and key.raw_value.key_size < LEAST_RSA_BITS:
            raise ValueError(f"an RSA key of {key.raw_value.key_size} bits: expected {LEAST_RSA_BITS} or more")
        return key
    raise ValueError("neither an RSA nor an EC key in PEM")


@dataclass(frozen=True, slots=True)
class TokenOpener:
    """Opens tokens with our decryption keys and the keys of the auth plugins; ``leeway`` in seconds.

    There may be several of both, of both kinds, so that keys can be replaced while calls go on.
    """

    decryption_keys: Sequence[Key]
    verification_keys: Sequence[Key]
    leeway: float = 30.0

    def receive(self, token: str, now: float) -> Received:
        """Open and verify a token as it comes in, its times included; ``now`` in epoch seconds.

        Raises:
            TokenRefusedError: it is not a valid auth result at this moment.

        """
        if len(token) > LARGEST_TOKEN:
            raise TokenRefusedError(f"larger than {LARGEST_TOKEN} bytes")
        inner = self._decrypted(token)
        claims = self._verified_claims(inner)
        expires, issued = _time(claims, "exp"), _time(claims, "iat")
        if expires + self.leeway < now:
            raise TokenRefusedError("expired")
        if expires - self.leeway > now + FARTHEST_SECONDS:
            raise TokenRefusedError("claim exp is more than a day ahead: expected seconds since 1970")
        if issued - self.leeway > now:
            raise TokenRefusedError("issued in the future")
        if claims.get("nbf") is not None and _time(claims, "nbf") - self.leeway > now:
            raise TokenRefusedError("not valid yet")
        # Without a key to open it nobody can write a token in another way either: its parts are authenticated, and
        # only one spelling of each is accepted.
        identity = hashlib.sha256(token.encode()).hexdigest()
        result = _auth_result(claims)
        return Received(result, identity, expires + self.leeway, frozenset(result.attributes))

    def _decrypted(self, token: str) -> str:
        fault = "no key for its algorithm"
        for key in self.decryption_keys:
            algorithms = [_KEY_ENCRYPTION[key.key_type], CONTENT_ENCRYPTION]
            try:
                envelope = jwe.decrypt_compact(token, key, algorithms=algorithms)
            except UnsupportedAlgorithmError:
                # For a key of the other kind, or of none that we have.
                continue
            except (JoseError, *_ODD) as reason:
                fault = type(reason).__name__
                continue
            try:
                inner = json.loads(envelope.plaintext or b"")["njwt"]
            except _ODD as reason:
                fault = type(reason).__name__
                break
            if not isinstance(inner, str):
                raise TokenRefusedError("no signed token inside")
            return inner
        raise TokenRefusedError(f"not encrypted for us ({fault})")

    def _verified_claims(self, inner: str) -> dict[str, Any]:
        for key in self.verification_keys:
            try:
                signed = jws.deserialize_compact(inner, key, algorithms=[_SIGNATURE[key.key_type]])
                claims = json.loads(signed.payload)
            except (DecodeError, *_ODD) as fault:
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
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise TokenRefusedError(f"claim {name} is not a time")
    return seconds


def _auth_result(claims: dict[str, Any]) -> AuthResult:
    subject = claims.get("sub")
    if not isinstance(subject, str) or subject not in SUBJECTS:
        raise TokenRefusedError("claim sub is not that of an auth result")
    raw_status = claims.get("status")
    status = _STATUSES.get(raw_status) if isinstance(raw_status, str) else None
    if status is None:
        raise TokenRefusedError("claim status is unknown")
    attributes = claims.get("attributes")
    # Whatever a failed result holds, nobody vouches for it; and the reference leaves out what is empty.
    if status is AuthStatus.FAILED or attributes is None:
        attributes = {}
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        raise TokenRefusedError("claim attributes is not an object of strings")
    session_url = claims.get("session_url")
    if session_url is not None and not isinstance(session_url, str):
        raise TokenRefusedError("claim session_url is not a string")
    issuer = claims.get("iss")
    return AuthResult(status, attributes, session_url, issuer if isinstance(issuer, str) else None)
