"""
Changing `CRYPTO_SECRET`: what is encrypted in a database is encrypted anew under the current secret, all in one
transaction, and the database takes its mark. Servers that know both secrets go on meanwhile.

Nothing has to be remembered from one run to the next: whoever runs it again finds done what was done.
"""

from dataclasses import dataclass

from ..config.settings import Settings
from .data_dir import DataDir, find_secrets
from .secret_files import forget_former, keep_instead
from .secrets_at_rest import CannotDecrypt, Vault
from .store import Transaction, changes, channels, secret_mark


@dataclass(frozen=True, slots=True)
class Rotated:
    """`channels`: how many were encrypted anew. `changed`: whether there was anything to do."""

    channels: int
    changed: bool


async def rotate(opened: DataDir, settings: Settings, *, now_ms: int) -> Rotated:
    """
    Make the current secret the database's, and the one that is kept in the data directory, if one is.

    `opened`: with `settings`. Raises `DataDirError`, `StoreError`, and `CannotDecrypt` where a channel opens with none
    of the secrets; then nothing was changed.
    """
    store, vault = opened.store, opened.vault
    mark = await secret_mark.read(store) or ""
    is_stale = bool(await channels.count_former(store, vault)) or not vault.is_current_mark(mark)
    secret, former = find_secrets(settings)
    # On the disk before the database has it: where it was made up for this command, nothing else keeps it.
    kept = secret is not None and keep_instead(settings.data_dir, secret, former)
    encrypted = await store.run(lambda transaction: _rotate(transaction, vault, now_ms)) if is_stale else 0
    forgotten = forget_former(settings.data_dir)
    return Rotated(encrypted, is_stale or kept or forgotten)


async def _rotate(transaction: Transaction, vault: Vault, now_ms: int) -> int:
    encrypted = await channels.encrypt_again(transaction, vault)
    await changes.note(transaction, "channel", 0, now_ms=now_ms)
    # From here on nobody else creates a channel. What was created since the lines above is under a secret of then;
    # whoever comes after this transaction sees the new mark.
    encrypted += await channels.encrypt_again(transaction, vault)
    # Not as it was when this process opened the database: another one may have changed it since.
    current = vault.for_database(await secret_mark.read(transaction) or "")
    if current is None:
        raise CannotDecrypt("another command has changed it meanwhile")
    await secret_mark.replace(transaction, current.mark)
    return encrypted
