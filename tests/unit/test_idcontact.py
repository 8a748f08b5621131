"""Auth results: what is accepted, and what is refused with which reason."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwe, jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from idbellen.demo.tokens import auth_result
from idbellen.domain.idcontact import (
    LARGEST_TOKEN,
    Admission,
    AuthResult,
    AuthStatus,
    TokenOpener,
    TokenRefusedError,
    admission,
    feedback_address,
    load_key,
    loggable,
    session_url_host,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_700_000_000.0
OURS = RSAKey.generate_key(2048)
PLUGIN = RSAKey.generate_key(2048)
OTHER = RSAKey.generate_key(2048)
OPENER = TokenOpener([OURS], [OTHER, PLUGIN], leeway=30)


def token(**changes: object) -> str:
    values: dict[str, Any] = {
        "identity_attributes": {"fullname": "Someone"},
        "status": "succes",
        "subject": "id-contact-attributes",
        "signing_key": PLUGIN,
        "encryption_key": OURS,
        "now": NOW,
    } | changes
    return auth_result(values.pop("identity_attributes"), **values)


def sealed(payload: object) -> str:
    return jwe.encrypt_compact(
        {"alg": "RSA-OAEP", "enc": "A128CBC-HS256"}, json.dumps(payload), OURS, algorithms=["RSA-OAEP", "A128CBC-HS256"]
    )


def signed(claims: object) -> str:
    return jws.serialize_compact({"alg": "RS256"}, json.dumps(claims), PLUGIN, algorithms=["RS256"])


CLAIMS = {
    "sub": "id-contact-attributes",
    "status": "succes",
    "attributes": {"a": "b"},
    "iat": int(NOW),
    "exp": int(NOW) + 300,
}


EC_OURS, EC_PLUGIN = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
EVERY_KEY = TokenOpener([OURS, EC_OURS], [OTHER, PLUGIN, EC_PLUGIN], leeway=30)


def elliptic(**changes: object) -> str:
    keys = {"signing_key": EC_PLUGIN, "encryption_key": EC_OURS, "signature": "ES256", "key_encryption": "ECDH-ES"}
    return token(**(keys | changes))


@pytest.mark.parametrize("make", [token, elliptic])
@pytest.mark.parametrize(
    ("status", "subject"), [("succes", "id-contact-attributes"), ("success", "verder-helpen-attributes")]
)
def test_both_dialects_with_both_kinds_of_keys(make: Callable[..., str], status: str, subject: str) -> None:
    received = EVERY_KEY.receive(make(status=status, subject=subject), NOW)
    assert received.result == AuthResult(AuthStatus.SUCCESS, {"fullname": "Someone"})
    assert received.until == NOW + 330
    assert "Someone" not in repr(received)


def test_a_failed_result_vouches_for_nothing() -> None:
    for attributes in (None, {}, {"fullname": "Someone"}):
        received = OPENER.receive(token(status="failed", identity_attributes=attributes), NOW)
        assert received.result == AuthResult(AuthStatus.FAILED, {})


def test_keys_can_be_replaced_one_after_the_other() -> None:
    new_plugin, new_ours = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
    during = TokenOpener([OURS, new_ours], [PLUGIN, new_plugin])
    after = TokenOpener([new_ours], [new_plugin])
    for signing_key in (PLUGIN, new_plugin):
        for encryption_key in (OURS, new_ours):
            assert during.receive(token(signing_key=signing_key, encryption_key=encryption_key), NOW)
    with pytest.raises(TokenRefusedError, match="not encrypted for us"):
        after.receive(token(signing_key=new_plugin), NOW)
    with pytest.raises(TokenRefusedError, match="not signed by a known"):
        after.receive(token(encryption_key=new_ours), NOW)


def test_who_issued_it_is_what_the_plugin_says_whoever_signed() -> None:
    assert OPENER.receive(token(), NOW).result.issuer is None, "as the plugins of the reference"
    for signing_key in (PLUGIN, OTHER):
        assert OPENER.receive(token(issuer="yivi", signing_key=signing_key), NOW).result.issuer == "yivi"
    assert OPENER.receive(claiming(iss=["yivi"]), NOW).result.issuer is None


def test_success_without_attributes_is_accepted_as_the_reference_does() -> None:
    for text in (token(identity_attributes=None), token(identity_attributes={}), claiming(attributes=None)):
        received = OPENER.receive(text, NOW)
        assert received.result == AuthResult(AuthStatus.SUCCESS, {})
        assert not received.came


def test_what_did_not_come_is_told_in_the_order_of_the_purpose() -> None:
    came = AuthResult(AuthStatus.SUCCESS, {"bsn": "1", "email": "a"})
    assert came.missing(("fullname", "bsn", "address")) == ["fullname", "address"]
    assert came.missing(("email",)) == []
    assert AuthResult(AuthStatus.FAILED, {}).missing(("fullname",)) == [], "nobody logged in"


def test_names_are_told_in_the_log_and_what_may_be_anything_is_counted() -> None:
    assert loggable(["bsn", "pbdf.gemeente.personalData.fullname"]) == "bsn,pbdf.gemeente.personalData.fullname"
    assert loggable([]) == "none"
    assert loggable(["bsn", "Sanne Voorbeeld", "999990019", "", "\x1b[2J", "x" * 65]) == "bsn,and 5 more"
    assert loggable(["999990019"]) == "and 1 more"
    assert loggable(f"name{number:02}" for number in range(22)).endswith(",name19,and 2 more")


@pytest.mark.parametrize("claims", [{"nbf": NOW + 29}, {"nbf": NOW - 3600}, {"nbf": None}])
def test_a_result_counts_from_its_nbf_on(claims: dict[str, float | None]) -> None:
    assert OPENER.receive(claiming(**claims), NOW)


def test_a_token_is_known_again_and_no_two_are_alike() -> None:
    text = token()
    assert OPENER.receive(text, NOW).identity == OPENER.receive(text, NOW + 1).identity
    same_second = {OPENER.receive(token(), NOW).identity for _ in range(5)}
    assert len(same_second) == 5, "two citizens may have logged in at a test plugin in one second"


@pytest.mark.parametrize("part", range(5))
def test_a_token_cannot_be_written_in_another_way(part: int) -> None:
    parts = token().split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = parts[part][-1]
    for other in alphabet:
        if other != last:
            spelled = [*parts[:part], parts[part][:-1] + other, *parts[part + 1 :]]
            with pytest.raises(TokenRefusedError, match="not encrypted for us"):
                OPENER.receive(".".join(spelled), NOW)


def test_only_the_attributes_that_are_named_are_kept() -> None:
    result = AuthResult(AuthStatus.SUCCESS, {"fullname": "Someone", "bsn": "1"}, "https://auth.example/s")
    assert result.with_only(("bsn", "birthdate")) == AuthResult(
        AuthStatus.SUCCESS, {"bsn": "1"}, "https://auth.example/s"
    )


def weak_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it is to be refused
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_keys_from_pem() -> None:
    assert load_key(OURS.as_pem(private=True)).is_private
    assert load_key(ECKey.generate_key("P-256").as_pem(private=False)).key_type == "EC"
    for pem, reason in {
        b"nothing of the kind": "neither an RSA nor an EC key",
        ECKey.generate_key("P-384").as_pem(private=True): "on curve P-384: expected P-256",
        weak_key(): "of 1024 bits: expected 2048",
    }.items():
        with pytest.raises(ValueError, match=reason):
            load_key(pem)


def test_a_day_is_as_long_as_a_result_may_count() -> None:
    assert OPENER.receive(claiming(exp=NOW + 86_400), NOW).until == NOW + 86_430


def test_the_lifetime_guards_the_delivery() -> None:
    text = token()
    assert OPENER.receive(text, NOW + 329)
    with pytest.raises(TokenRefusedError, match="expired"):
        OPENER.receive(text, NOW + 331)
    with pytest.raises(TokenRefusedError, match="future"):
        OPENER.receive(text, NOW - 31)


@pytest.mark.parametrize(
    ("result", "admit_unverified", "verdict"),
    [
        (AuthResult(AuthStatus.SUCCESS, {}), False, Admission.ADMIT),
        (AuthResult(AuthStatus.SUCCESS, {}), True, Admission.ADMIT),
        (AuthResult(AuthStatus.FAILED, {}), False, Admission.REFUSE),
        (AuthResult(AuthStatus.FAILED, {}), True, Admission.ADMIT),
        (None, False, Admission.WAIT),
        (None, True, Admission.ADMIT),
    ],
)
def test_who_is_let_in(result: AuthResult | None, admit_unverified: bool, verdict: Admission) -> None:  # noqa: FBT001
    assert admission(result, admit_unverified=admit_unverified) is verdict


def tampered() -> str:
    parts = token().split(".")
    parts[3] = ("A" if parts[3][0] != "A" else "B") + parts[3][1:]
    return ".".join(parts)


def unsigned() -> str:
    header, payload = "eyJhbGciOiJub25lIn0", signed(CLAIMS).split(".")[1]
    return sealed({"njwt": f"{header}.{payload}."})


def signed_with_public_key_as_secret() -> str:
    secret = OctKey.import_key(PLUGIN.as_pem(private=False).replace(b"-----", b""))
    return sealed({"njwt": jws.serialize_compact({"alg": "HS256"}, json.dumps(CLAIMS), secret, algorithms=["HS256"])})


def claiming(**claims: object) -> str:
    return sealed({"njwt": signed(CLAIMS | claims)})


ODD: tuple[object, ...] = (5, None, True, {}, [[]], 1e400, "\ud800", {"kty": []}, ["b64"])


def headed(**header: object) -> str:
    """Give the first parts of a token with this header, as anybody can write it."""
    return urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode() + ".AAAA.AAAA"


def without(name: str) -> str:
    return sealed({"njwt": signed({key: value for key, value in CLAIMS.items() if key != name})})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not encrypted for us"),
        ("a.b.c.d.e", "not encrypted for us"),
        (signed(CLAIMS), "not encrypted for us"),
        (tampered(), "not encrypted for us"),
        (token(encryption_key=OTHER), "not encrypted for us"),
        (token(key_encryption="RSA-OAEP-256"), "not encrypted for us"),
        (token(content_encryption="A256GCM"), "not encrypted for us"),
        (token(signing_key=RSAKey.generate_key(2048)), "not signed by a known"),
        (token(signature="RS512"), "not signed by a known"),
        (unsigned(), "not signed by a known"),
        (signed_with_public_key_as_secret(), "not signed by a known"),
        (sealed({"other": 1}), "not encrypted for us"),
        (sealed(["njwt"]), "not encrypted for us"),
        (sealed({"njwt": 5}), "no signed token inside"),
        (sealed({"njwt": "nonsense"}), "no signed JSON inside"),
        (sealed({"njwt": signed([1])}), "claims are not an object"),
        (token(subject="something-else"), "claim sub"),
        (token(status="maybe"), "claim status"),
        (claiming(attributes=[]), "claim attributes"),
        (claiming(attributes="fullname"), "claim attributes"),
        (claiming(nbf=NOW + 31), "not valid yet"),
        (claiming(nbf="tomorrow"), "claim nbf"),
        (sealed({"njwt": signed(CLAIMS | {"attributes": {"a": 1}})}), "claim attributes"),
        (sealed({"njwt": signed(CLAIMS | {"status": ["succes"]})}), "claim status"),
        (sealed({"njwt": signed(CLAIMS | {"exp": "tomorrow"})}), "claim exp"),
        (sealed({"njwt": signed(CLAIMS | {"session_url": 5})}), "claim session_url"),
        (claiming(sub=["id-contact-attributes"]), "claim sub"),
        (claiming(sub={"a": 1}), "claim sub"),
        (claiming(exp=10**400), "claim exp is not a time"),
        (claiming(exp=math.inf), "claim exp is not a time"),
        (claiming(exp=math.nan), "claim exp is not a time"),
        (claiming(exp=True), "claim exp"),
        (claiming(exp=(NOW + 300) * 1000), "more than a day ahead: expected seconds"),
        (claiming(exp=NOW + 10 * 365 * 86400), "more than a day ahead"),
        (claiming(iat=-math.inf), "claim iat is not a time"),
        (claiming(iat=math.nan), "claim iat is not a time"),
        (claiming(iat=NOW * 1000), "issued in the future"),
        *((sealed({"njwt": headed(crit=odd)}), "no signed JSON inside|not signed") for odd in ODD),
        *((sealed({"njwt": headed(alg=odd)}), "no signed JSON inside|not signed") for odd in ODD),
        *((headed(alg="RSA-OAEP", enc="A128CBC-HS256", crit=odd) + ".c.d", "not encrypted for us") for odd in ODD),
        *((headed(alg="ECDH-ES", enc="A128CBC-HS256", epk=odd) + ".c.d", "not encrypted for us") for odd in ODD),
        (sealed({"njwt": "\ud800.a.b"}), "no signed JSON inside"),
        ("é.é.é.é.é", "not encrypted for us"),
        ("\ud800.a.b.c.d", "not encrypted for us"),
        (without("exp"), "claim exp"),
        (without("iat"), "claim iat"),
        ("x" * (LARGEST_TOKEN + 1), "larger than"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(TokenRefusedError, match=reason):
        OPENER.receive(text, NOW)


# Addresses of sessions


@pytest.mark.parametrize(
    ("session_url", "host"),
    [
        ("https://auth.example/session", "auth.example"),
        ("https://AUTH.example", "auth.example"),
        ("https://auth.example:443/session", "auth.example"),
        ("http://auth.example:80/session", "auth.example"),
        ("http://auth.example:443/session", "auth.example:443"),
        ("https://auth.example:8443/session", "auth.example:8443"),
        ("https://auth.example:/session", "auth.example"),
        ("http://127.0.0.1:8000/", "127.0.0.1:8000"),
        ("http://[::1]/session", "[::1]"),
        ("http://[::1]:8000/session", "[::1]:8000"),
        ("https://auth.example?@other.example/", "auth.example"),
        ("https://auth.example#@other.example/", "auth.example"),
        ("https://auth.example.other.example/", "auth.example.other.example"),
        # Whoever else may read an address before the "@" as its host, is not trusted to be right.
        ("https://auth.example@other.example/", None),
        ("https://user:password@auth.example/", None),
        ("https://@auth.example/", None),
        ("https://auth.example\\@other.example/", None),
        ("ftp://auth.example/", None),
        ("file:///etc/passwd", None),
        ("//auth.example/session", None),
        ("auth.example/session", None),
        ("https:auth.example", None),
        ("https://", None),
        ("https:///session", None),
        ("https://:443/session", None),
        ("https://auth.example:port/", None),
        ("https://auth.example:65536/", None),
        ("https://[::1/session", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_host_of_an_address(session_url: str, host: str | None) -> None:
    assert session_url_host(session_url) == host


@pytest.mark.parametrize(
    ("session_url", "address"),
    [
        ("https://auth.example/session", "https://auth.example/session?type=logout"),
        ("https://auth.example", "https://auth.example?type=logout"),
        ("https://auth.example/a%2Fb?c=%26d&e", "https://auth.example/a%2Fb?c=%26d&e&type=logout"),
        ("https://auth.example/session?#top", "https://auth.example/session?type=logout"),
        # urlsplit drops line ends, as browsers do, so that none comes into a request.
        ("https://auth.example/ses\r\nsion", "https://auth.example/session?type=logout"),
    ],
)
def test_the_address_keeps_all_but_the_fragment(session_url: str, address: str) -> None:
    assert feedback_address(session_url, "logout") == address
