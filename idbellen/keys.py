"""Makes the keys of an installation, and takes over the one that auth plugins encrypt for already."""

from __future__ import annotations

import json
import os
import re
import secrets
import textwrap
import warnings
from typing import TYPE_CHECKING, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, RSAKey

from idbellen.domain.idcontact import CURVE, load_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from idbellen.domain.idcontact import Key

RSA_BITS = 3072
DECRYPTION_KEY, ENCRYPTION_KEY = "decryption-key.pem", "encryption-key.pub.pem"
IMPORTED_KEY, IMPORTED_PUBLIC_KEY = "decryption-key-imported.pem", "encryption-key-imported.pub.pem"
WANTED = "expected the private one, with which the old plugin decrypts"

# RFC 7468, and what OpenSSL wrote before it.
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]*KEY)-----(.*?)-----END \1-----", re.DOTALL)
# How the plugins of ID Contact and Verder Helpen call it in their configuration, TOML, YAML or environment; they may
# hold other private keys, with which they sign.
_NAMED = re.compile(r"^(?!\s*#).*?decryption_privkey", re.IGNORECASE | re.MULTILINE)


class PassphraseError(ValueError):
    """A key is encrypted with a passphrase, and none was given."""


def generate(directory: Path, kind: Literal["rsa", "ec"] = "rsa", *, group: int | None = None) -> list[Path]:
    """Make the master key and our key pair; gives the files made, the public key last.

    ``group``: who, besides the owner, may read them; a folder that is not there yet is made for that group too.

    Raises:
        FileExistsError: one is there already; nothing is overwritten.
        OSError: it cannot be written.

    """
    pair = RSAKey.generate_key(RSA_BITS) if kind == "rsa" else ECKey.generate_key(CURVE)
    return _write(
        {
            directory / "master-key": secrets.token_urlsafe(48).encode() + b"\n",
            directory / DECRYPTION_KEY: pair.as_pem(private=True),
            directory / ENCRYPTION_KEY: pair.as_pem(private=False),
        },
        group,
    )


def take_over(directory: Path, key: Key, *, group: int | None = None) -> list[Path]:
    """Write a key that another plugin had, beside ours; gives the files made, the public key last.

    ``group`` and what is raised: as :func:`generate`.
    """
    return _write(
        {
            directory / IMPORTED_KEY: key.as_pem(private=True),
            directory / IMPORTED_PUBLIC_KEY: key.as_pem(private=False),
        },
        group,
    )


def _write(files: Mapping[Path, bytes], group: int | None) -> list[Path]:
    """Write new files; those not for the public are secret."""
    for path in files:
        if path.exists():
            raise FileExistsError(f"{path}: is there already, and nothing is overwritten")
    directory = next(iter(files)).parent
    if not directory.exists():
        directory.mkdir(parents=True, mode=0o755 if group is None else 0o750)
        if group is not None:
            os.chown(directory, -1, group)
    secret = 0o600 if group is None else 0o640
    for path, content in files.items():
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            if group is not None:
                os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), 0o644 if path.name.endswith(".pub.pem") else secret)
            file.write(content)
    return list(files)


def read_private_key(content: bytes, passphrase: Callable[[], bytes]) -> Key:
    """Find the key for auth results in what another plugin has: PEM, JWK (RFC 7517), or its configuration around PEM.

    ``passphrase`` is asked for one only if the key is encrypted; empty: there is none.

    Raises:
        ValueError: there is no such key, or it cannot be used; the message says why, and nothing of the key.

    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError(
            "not text: of a key in DER 'openssl pkey -inform DER -in FILE' makes PEM, and of a PKCS #12 file "
            "'openssl pkcs12 -nocerts -in FILE' does"
        ) from None
    return load_key(_from_jwk(text) or _opened(_block(text), passphrase))


def _from_jwk(text: str) -> bytes:
    """Give the key of a JWK, or of a set with one private key, as PEM; empty: the text is something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return b""
    every = found.get("keys", [found]) if isinstance(found, dict) else []
    jwks = [jwk for jwk in every if isinstance(jwk, dict) and "kty" in jwk] if isinstance(every, list) else []
    if not jwks:
        return b""
    private = [jwk for jwk in jwks if "d" in jwk]
    # A set may hold one with which its owner signs.
    private = [jwk for jwk in private if jwk.get("use") == "enc"] or private
    if not private:
        raise ValueError(f"no private key in this JWK: {WANTED}")
    _only_one(private)
    if private[0]["kty"] not in ("RSA", "EC"):
        raise ValueError("neither an RSA nor an EC key")
    kind = RSAKey if private[0]["kty"] == "RSA" else ECKey
    try:
        with warnings.catch_warnings():
            # A weak key is refused when it is loaded.
            warnings.simplefilter("ignore", SecurityWarning)
            return kind.import_key(private[0]).as_pem(private=True)
    except (ValueError, TypeError, LookupError, AttributeError, JoseError):
        raise ValueError("a JWK that is not whole") from None


def _block(text: str) -> bytes:
    """Give the one private key in PEM that is in a text, however that is indented, quoted or escaped."""
    plain = text.replace("\\r", "").replace("\\n", "\n")
    named = _NAMED.search(plain)
    blocks = list(_BLOCK.finditer(plain, named.end() if named else 0))
    if named:
        # The next ones are for something else.
        blocks = blocks[:1]
    private = [block for block in blocks if block[1].endswith("PRIVATE KEY")]
    if not blocks:
        raise ValueError("no key in it: expected PEM, a JWK, or the configuration of a plugin with decryption_privkey")
    if not private:
        raise ValueError(f"a public key: {WANTED}")
    _only_one(private)
    label, inside = private[0].groups()
    headers, empty, body = re.sub(r"[ \t\r\"'\\]+", "", inside.strip()).partition("\n\n")
    if not empty:
        # Those of OpenSSL's older way to encrypt (RFC 1421, 4.6).
        headers, body = "", headers
    lines = [*headers.splitlines(), *([""] if empty else []), *textwrap.wrap("".join(body.split()), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _only_one(keys: Sequence[object]) -> None:
    if len(keys) > 1:
        raise ValueError(f"{len(keys)} private keys: give a file with only the one that decrypts auth results")


def _opened(pem: bytes, passphrase: Callable[[], bytes]) -> bytes:
    """Give a key in PEM as one that no passphrase protects."""
    try:
        try:
            key = load_pem_private_key(pem, None)
        except TypeError:
            # This is how it says that it needs one.
            key = load_pem_private_key(pem, _given(passphrase))
    except (ValueError, UnsupportedAlgorithm) as fault:
        if isinstance(fault, PassphraseError):
            raise
        raise ValueError("a private key that cannot be read: damaged, or its passphrase is another") from None
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _given(passphrase: Callable[[], bytes]) -> bytes:
    given = passphrase()
    if not given:
        raise PassphraseError("encrypted with a passphrase: --passphrase-file gives it")
    return given
