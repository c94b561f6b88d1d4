"""
Secrets at rest: everything that is derived from `CRYPTO_SECRET`, and the hashing of passwords.

Channel keys and other secrets the gateway must read again are encrypted (AES-256-GCM). Token keys are never read
again, so only a keyed hash of them is stored. Passwords are hashed with Argon2id. `cryptography`, `argon2` and
`bcrypt` are imported at first use: a process that decrypts nothing does not pay for them.

`CRYPTO_SECRET` can be changed. What is encrypted is then encrypted anew. What is hashed cannot be hashed anew, and
goes on under the key it has, which is derived from the database's first secret and from then on is one of the things
that are encrypted: a stolen database tells as little as before.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import TYPE_CHECKING

from ..config.secret import Secret
from ..config.setting_texts import SHORTEST_SECRET

if TYPE_CHECKING:
    from argon2 import PasswordHasher

VERSION = "v1"
NONCE_BYTES = 12  # what GCM is specified for (NIST SP 800-38D, 5.2.1.1)
BCRYPT_READS = 72
TOKEN_KEY = "the token hashes"  # what the messages call it, too


class CannotDecrypt(ValueError):
    """A stored secret that does not open. The message names the record and what to do, never the secret."""


def _derive(secret: Secret, purpose: bytes) -> bytes:
    """32 bytes for one purpose. `person` keeps the purposes apart (RFC 7693; at most 16 bytes)."""
    root = hashlib.blake2b(secret.reveal().encode(), digest_size=32).digest()
    return hashlib.blake2b(key=root, digest_size=32, person=purpose).digest()


class _Key:
    """One generation of `CRYPTO_SECRET`: its encryption key, the id of that key and the key of its token hashes."""

    def __init__(self, secret: Secret) -> None:
        encryption = _derive(secret, b"tollway-encrypt")
        self.id = hashlib.blake2b(key=encryption, digest_size=4, person=b"tollway-key-id").hexdigest()
        self.fingerprint = _derive(secret, b"tollway-mark").hex()
        self.encryption = encryption
        self.token_key = _derive(secret, b"tollway-token")


class Vault:
    """
    Encrypts with the current secret; decrypts with the current one and the former ones.

    `former`: earlier values of `CRYPTO_SECRET`, until everything is encrypted anew. Raises ValueError on a secret of
    fewer than 16 characters: it would be guessed from one stolen row.

    It hashes tokens as a new database does. For one that has a mark already, take `for_database`.
    """

    def __init__(self, secret: Secret, *, former: Sequence[Secret] = ()) -> None:
        for name, each in (("CRYPTO_SECRET", secret), *(("CRYPTO_SECRET_FORMER", each) for each in former)):
            if len(each.reveal()) < SHORTEST_SECRET:
                raise ValueError(f"{name} must have at least {SHORTEST_SECRET} characters")
        self._current = _Key(secret)
        self._keys = {key.id: key for key in (*map(_Key, former), self._current)}
        self._hash_tokens_with(self._current.token_key)

    def _hash_tokens_with(self, key: bytes) -> None:
        self._token_key = key
        self._token_hasher = hashlib.blake2b(key=key, digest_size=32)

    def encrypt(self, text: str, aad: str) -> str:
        """
        `v1:<key id>:<base64 of nonce and ciphertext>`.

        `aad` names the record ("channel:7"). It is authenticated and not stored, so that a ciphertext copied into
        another record does not open there.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + AESGCM(self._current.encryption).encrypt(nonce, text.encode(), aad.encode())
        return f"{VERSION}:{self._current.id}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, stored: str, aad: str) -> str:
        """The text that `encrypt` was given. Raises `CannotDecrypt`."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        version, _, rest = stored.partition(":")
        key_id, _, encoded = rest.partition(":")
        if version != VERSION or not encoded:
            raise CannotDecrypt(f"the secret of {aad} is not in the form {VERSION}:<key id>:<base64>")
        key = self._keys.get(key_id)
        if key is None:
            raise CannotDecrypt(
                f"the secret of {aad} was encrypted under another CRYPTO_SECRET (key id {key_id}), "
                "and opens with no other: CRYPTO_SECRET or CRYPTO_SECRET_FORMER must name that one"
            )
        try:
            sealed = base64.b64decode(encoded, validate=True)
            text = AESGCM(key.encryption).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad.encode())
        except (InvalidTag, ValueError) as exc:
            raise CannotDecrypt(f"the secret of {aad} was altered, or belongs to another record") from exc
        return text.decode()

    def is_current(self, stored: str) -> bool:
        """False for a text that was encrypted under a former secret and should be encrypted again."""
        return stored.startswith(f"{VERSION}:{self._current.id}:")

    @property
    def mark(self) -> str:
        """
        What a database remembers of its secret, and the vault that fits it is known by: 64 hex digits of a fingerprint
        and, where tokens are hashed under the key of an earlier secret, that key, encrypted. It tells nothing of
        either.
        """
        if self._token_key == self._current.token_key:
            return self._current.fingerprint
        return f"{self._current.fingerprint} {self.encrypt(self._token_key.hex(), TOKEN_KEY)}"

    def for_database(self, mark: str) -> "Vault | None":
        """
        This vault as the database with that mark needs it: it hashes tokens as they are hashed there. None where the
        mark is that of none of these secrets. Raises `CannotDecrypt`.
        """
        key = self._marked(mark)
        if key is None:
            return None
        _, _, encrypted = mark.partition(" ")
        found = copy(self)
        found._hash_tokens_with(bytes.fromhex(self.decrypt(encrypted, TOKEN_KEY)) if encrypted else key.token_key)
        return found

    def knows(self, mark: str) -> bool:
        """Whether it is that of the current secret or of a former one."""
        return self._marked(mark) is not None

    def is_current_mark(self, mark: str) -> bool:
        """False for the mark of a former secret, which should give way to that of the current one."""
        return self._marked(mark) is self._current

    def _marked(self, mark: str) -> _Key | None:
        fingerprint, _, _ = mark.partition(" ")
        known = (key for key in self._keys.values() if hmac.compare_digest(key.fingerprint, fingerprint))
        return next(known, None)

    def token_hash(self, key: str) -> str:
        """
        64 hex digits for a caller's key, with or without its `sk-`. Under a microsecond: it runs for every request.

        A fast hash is enough because a key is 48 random characters; it is keyed so that a stolen database alone
        does not let anyone test keys found elsewhere.
        """
        hasher = self._token_hasher.copy()
        hasher.update(key.removeprefix("sk-").encode())
        return hasher.hexdigest()


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher

    # OWASP, Password Storage Cheat Sheet: Argon2id with 19 MiB, two passes, one lane.
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@cache
def _nobody() -> str:
    return hash_password(secrets.token_urlsafe())


def hash_password(password: str) -> str:
    """An Argon2id hash in PHC form. About 40 ms and 19 MiB: call it in a thread, few at a time."""
    return _hasher().hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """
    Whether `password` is the one behind `stored`: an Argon2 hash, or a bcrypt one (`$2a$`, `$2b$`, `$2y$`) as
    one-api and New API store. Costs what `hash_password` costs.

    Give None for a user who does not exist: it takes as long and is False, so that time tells no names.
    """
    if stored is not None and stored.startswith("$2"):
        return _verify_bcrypt(password, stored)
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        _hasher().verify(stored or _nobody(), password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def _verify_bcrypt(password: str, stored: str) -> bool:
    import bcrypt

    try:
        # Every bcrypt reads 72 bytes; this one refuses more instead of cutting them off.
        found = bcrypt.hashpw(password.encode()[:BCRYPT_READS], stored.encode())
    except ValueError:
        return False
    return hmac.compare_digest(found, stored.encode())


def needs_rehash(stored: str) -> bool:
    """True for a bcrypt hash or other Argon2 parameters: hash again when the password was just seen to be right."""
    return not stored.startswith("$argon2id$") or _hasher().check_needs_rehash(stored)
