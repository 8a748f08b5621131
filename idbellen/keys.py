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


def generate(directory: Path, kind: Literal["rsa", "ec"] = "rsa", *, group: int | None = None) -> list[Path]:
    """Make the master key and our key pair; gives the files made, the public key last.

    ``group``: who, besides the owner, may read them; a folder that is not there yet is made for that group too.

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
