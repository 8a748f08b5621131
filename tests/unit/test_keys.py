"""The key of the plugin before: each form in which it is found, and what is refused with which reason."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from idbellen.keys import generate, read_private_key, take_over

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from idbellen.domain.idcontact import Key

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
# With which the plugin signs: another one in the same file.
SIGNING = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PASSPHRASE = b"a passphrase"


def pem(key: PrivateKeyTypes = RSA, form: PrivateFormat = PrivateFormat.PKCS8, passphrase: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, encryption).decode()


def public(key: PrivateKeyTypes = RSA) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read(text: str | bytes, passphrase: bytes = b"") -> Key:
    return read_private_key(text.encode() if isinstance(text, str) else text, lambda: passphrase)


def same(key: Key, other: PrivateKeyTypes = RSA) -> bool:
    return key.is_private and key.as_pem(private=True) == pem(other).encode()


def jwk(key: PrivateKeyTypes = RSA, **more: object) -> dict[str, object]:
    return read(pem(key)).as_dict(private=True) | more


TOML = f'''
[global]
# Its decryption_privkey is below.
[global.signature_pubkey]
type = "RSA"
key = """
{public(SIGNING)}"""
[global.widget_signing_privkey]
type = "RSA"
key = """
{pem(SIGNING)}"""
[global.decryption_privkey]
type = "RSA"
key = """
{pem()}"""
[global.start_auth_signing_privkey]
key = """
{pem(SIGNING)}"""
'''
YAML = f"""
internal_url: http://comm:8000
signature_pubkey:
  type: RSA
  key: |
{textwrap.indent(public(SIGNING), "    ")}
decryption_privkey:
  type: RSA
  key: |
{textwrap.indent(pem(), "    ")}
widget_signature_privkey:
  type: RSA
  key: |
{textwrap.indent(pem(SIGNING), "    ")}
"""
ESCAPED = pem().replace("\n", "\\n")


@pytest.mark.parametrize(
    "text",
    [
        pem(),
        pem(form=PrivateFormat.TraditionalOpenSSL),
        pem().replace("\n", "\r\n"),
        "Bag Attributes\n    friendlyName: comm\nKey Attributes: <No Attributes>\n" + pem(),
        public(SIGNING) + pem(),
        pem().replace("\n", " "),
        TOML,
        TOML.replace("\n", "\r\n"),
        YAML,
        f'ROCKET_DECRYPTION_PRIVKEY=\'{{type="RSA",key="{ESCAPED}"}}\'',
        json.dumps({"decryption_privkey": {"type": "RSA", "key": pem()}, "ui_signing_privkey": {"key": pem(SIGNING)}}),
        json.dumps(jwk()),
        "\n " + json.dumps(jwk(use="enc", alg="RSA-OAEP-256", kid="1"), indent=2),
        json.dumps({"keys": [jwk()]}),
        json.dumps({"keys": [jwk(SIGNING, use="sig"), jwk(use="enc"), {"kty": "RSA"}, "odd"]}),
    ],
)
def test_each_form_in_which_a_plugin_has_its_key(text: str) -> None:
    assert same(read(text))


@pytest.mark.parametrize("text", [pem(EC), pem(EC, PrivateFormat.TraditionalOpenSSL), json.dumps(jwk(EC))])
def test_elliptic_keys_too(text: str) -> None:
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert same(read(text), EC)
    assert text.startswith("{") or same(read(parameters + text), EC)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_passphrase_is_asked_for_only_when_there_is_one(form: PrivateFormat) -> None:
    locked = pem(RSA, form, PASSPHRASE)
    assert same(read(locked, PASSPHRASE))
    assert same(read(textwrap.indent(locked, "    "), PASSPHRASE))
    with pytest.raises(ValueError, match="encrypted with a passphrase: --passphrase-file gives it"):
        read(locked)
    with pytest.raises(ValueError, match="damaged, or its passphrase is another"):
        read(locked, b"another one")
    assert same(read_private_key(pem(form=form).encode(), lambda: pytest.fail("it was asked for")))


WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it is to be refused
CURVE = ec.generate_private_key(ec.SECP384R1())
PARTIAL = {name: value for name, value in jwk().items() if name != "n"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no key in it"),
        ("decryption_privkey: see elsewhere", "no key in it"),
        ('{"type": "RSA"}', "no key in it"),
        ('{"keys": 5}', "no key in it"),
        ("[" * 100_000, "no key in it"),
        (public(), "a public key: expected the private one"),
        (f"decryption_privkey = '''\n{public()}'''\nother = '''\n{pem()}'''", "a public key"),
        (json.dumps(read(pem()).as_dict(private=False)), "no private key in this JWK"),
        (json.dumps({"kty": "oct", "k": "AAAA"}), "no private key in this JWK"),
        (json.dumps({"kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "AA"}), "neither an RSA nor an EC key"),
        (json.dumps({"kty": ["RSA"], "d": "AA"}), "neither an RSA nor an EC key"),
        (json.dumps(PARTIAL), "a JWK that is not whole"),
        (json.dumps({"kty": "EC", "d": 5}), "a JWK that is not whole"),
        (pem() + pem(SIGNING), "2 private keys"),
        (json.dumps({"keys": [jwk(), jwk(SIGNING)]}), "2 private keys"),
        (pem(WEAK), "an RSA key of 1024 bits: expected 2048 or more"),
        (json.dumps({"keys": [jwk()]}).replace(str(jwk()["n"]), "AQAB"), "a JWK that is not whole"),
        (pem(CURVE), "curve P-384: expected P-256"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "neither an RSA nor an EC key"),
        (pem().replace("MII", "AAA", 1), "a private key that cannot be read"),
        (RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), "not text: of a key in DER"),
    ],
)
def test_what_is_refused_with_which_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        read(text)
    assert pem().splitlines()[1] not in str(refusal.value)


def test_it_lies_beside_ours_and_nothing_is_overwritten(tmp_path: Path) -> None:
    generate(tmp_path, "ec")
    made = take_over(tmp_path, read(pem()))
    assert [path.name for path in made] == ["decryption-key-imported.pem", "encryption-key-imported.pub.pem"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o600, 0o644]
    assert (made[0].read_text(), made[1].read_text()) == (pem(), public())
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        take_over(tmp_path, read(pem(SIGNING)))
    assert made[0].read_text() == pem()
