"""Seals auth results for a store: who has only the store sees nothing, and can change nothing unnoticed."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from idbellen.domain.idcontact import AuthResult, AuthStatus

# The nonce that AES-GCM is made for (NIST SP 800-38D). A key seals far fewer than the 2**32 results that limit it.
NONCE_BYTES = 12


class UnsealError(Exception):
    """What is sealed was not sealed by this key for this session, or has been changed."""


class Vault:
    """Seals auth results with AES-256-GCM under one key of 32 bytes, each bound to its session."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, result: AuthResult, reference: str) -> str:
        """Give a result as text that only this key opens, and only for the session with this reference."""
        content = [result.status.value, result.attributes, result.session_url, result.method]
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, json.dumps(content).encode(), reference.encode())
        return urlsafe_b64encode(nonce + sealed).decode()

    def unseal(self, sealed: str, reference: str) -> AuthResult:
        """Give what was sealed.

        Raises:
            UnsealError: it was sealed with another key or for another session, or has been changed.

        """
        try:
            raw = urlsafe_b64decode(sealed)
            text = self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], reference.encode())
        except (InvalidTag, ValueError):
            raise UnsealError from None
        status, attributes, session_url, method = json.loads(text)
        return AuthResult(AuthStatus(status), attributes, session_url, method)
