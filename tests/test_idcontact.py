"""Auth results: what is accepted, and what is refused with which reason."""

import json

import pytest
from joserfc import jwe, jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from idbellen.demo.tokens import auth_result
from idbellen.domain.idcontact import LARGEST_TOKEN, AuthStatus, TokenOpener, TokenRefusedError, load_key

NOW = 1_700_000_000.0
OURS = RSAKey.generate_key(2048)
PLUGIN = RSAKey.generate_key(2048)
OTHER = RSAKey.generate_key(2048)
OPENER = TokenOpener(OURS, [OTHER, PLUGIN], leeway=30)


def token(**changes: object) -> str:
    values: dict = {
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


@pytest.mark.parametrize(
    ("status", "subject"), [("succes", "id-contact-attributes"), ("success", "verder-helpen-attributes")]
)
def test_both_dialects(status: str, subject: str) -> None:
    result = OPENER.receive(token(status=status, subject=subject), NOW)
    assert result.status is AuthStatus.SUCCESS
    assert result.attributes == {"fullname": "Someone"}
    assert "Someone" not in repr(result)


def test_failed_has_no_attributes() -> None:
    result = OPENER.receive(token(status="failed", identity_attributes=None), NOW)
    assert result.status is AuthStatus.FAILED
    assert result.attributes == {}


def test_elliptic_curves() -> None:
    ours, plugin = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    text = token(signing_key=plugin, encryption_key=ours, signature="ES256", key_encryption="ECDH-ES")
    assert TokenOpener(ours, [PLUGIN, plugin]).receive(text, NOW).status is AuthStatus.SUCCESS


def test_keys_from_pem() -> None:
    assert load_key(OURS.as_pem(private=True)).is_private
    assert load_key(ECKey.generate_key("P-256").as_pem(private=False)).key_type == "EC"
    with pytest.raises(ValueError, match="neither an RSA nor an EC key"):
        load_key(b"nothing of the kind")


def test_the_lifetime_guards_the_delivery_and_not_the_wait() -> None:
    text = token()
    assert OPENER.receive(text, NOW + 329)
    with pytest.raises(TokenRefusedError, match="expired"):
        OPENER.receive(text, NOW + 331)
    assert OPENER.reopen(text).status is AuthStatus.SUCCESS
    with pytest.raises(TokenRefusedError, match="future"):
        OPENER.receive(text, NOW - 31)


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
        (token(identity_attributes=None), "claim attributes"),
        (sealed({"njwt": signed(CLAIMS | {"attributes": {"a": 1}})}), "claim attributes"),
        (sealed({"njwt": signed(CLAIMS | {"status": ["succes"]})}), "claim status"),
        (sealed({"njwt": signed(CLAIMS | {"exp": "tomorrow"})}), "claim exp"),
        (without("exp"), "claim exp"),
        (without("iat"), "claim iat"),
        ("x" * (LARGEST_TOKEN + 1), "larger than"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(TokenRefusedError, match=reason):
        OPENER.receive(text, NOW)
