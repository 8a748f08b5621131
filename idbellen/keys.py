"""Makes the keys of an installation."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Literal

from joserfc.jwk import ECKey, RSAKey

from idbellen.domain.idcontact import CURVE

if TYPE_CHECKING:
    from pathlib import Path

RSA_BITS = 3072


def generate(directory: Path, kind: Literal["rsa", "ec"] = "rsa") -> list[Path]:
    """Make the master key and our key pair; gives the files made, the public key last.

    Raises:
        FileExistsError: one is there already; nothing is overwritten.
        OSError: it cannot be written.

    """
    pair = RSAKey.generate_key(RSA_BITS) if kind == "rsa" else ECKey.generate_key(CURVE)
    files = {
        directory / "master-key": secrets.token_urlsafe(48).encode() + b"\n",
        directory / "decryption-key.pem": pair.as_pem(private=True),
        directory / "encryption-key.pub.pem": pair.as_pem(private=False),
    }
    for path in files:
        if path.exists():
            raise FileExistsError(f"{path}: is there already, and nothing is overwritten")
    directory.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        mode = 0o644 if path.name.endswith(".pub.pem") else 0o600
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            file.write(content)
    return list(files)
