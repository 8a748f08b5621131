"""Seals auth results and notes for a store: who has only the store sees nothing, and can change nothing unnoticed."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from idbellen.domain.idcontact import AuthResult, AuthStatus

if TYPE_CHECKING:
    from idbellen.domain.ids import SessionRef

# The nonce that AES-GCM is made for (NIST SP 800-38D). A key seals far fewer than the 2**32 results that limit it.
NONCE_BYTES = 12


class UnsealError(Exception):
    """What is sealed was not sealed by this key for this session, or has been changed."""


class Vault:
    """Seals texts with AES-256-GCM under one key of 32 bytes, each bound to what it is about."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, result: AuthResult, reference: SessionRef) -> str:
        """Give a result as text that only this key opens, and only for the session with this reference."""
        content = [result.status.value, result.attributes, result.session_url, result.issuer]
        return self.seal_text(json.dumps(content), reference)

    def unseal(self, sealed: str, reference: SessionRef) -> AuthResult:
        """Give what was sealed.

        Raises:
            UnsealError: it was sealed with another key or for another session, or has been changed.

        """
        status, attributes, session_url, issuer = json.loads(self.unseal_text(sealed, reference))
        return AuthResult(AuthStatus(status), attributes, session_url, issuer)

    def seal_text(self, text: str, bound_to: str) -> str:
        """Give a text as one that only this key opens, and only for what it is bound to."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, text.encode(), bound_to.encode())
        return urlsafe_b64encode(nonce + sealed).decode()

    def unseal_text(self, sealed: str, bound_to: str) -> str:
        """Give the text that was sealed.

        Raises:
            UnsealError: it was sealed with another key or for something else, or has been changed.

        """
        try:
            raw = urlsafe_b64decode(sealed)
            return self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound_to.encode()).decode()
        except (InvalidTag, ValueError):
            raise UnsealError from None
