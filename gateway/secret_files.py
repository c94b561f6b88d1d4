"""
The files of `DATA_DIR` that keep `CRYPTO_SECRET` where no variable does: the secret and, while it is being changed, the
former ones as a JSON array.

Each appears whole or not at all, on the disk and with mode 0600. A start between any two steps of a change finds in
them all that it needs.
"""

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import orjson

from ..config.secret import Secret
from ..config.setting_texts import SHORTEST_SECRET

SECRET_FILE = "crypto_secret"
FORMER_FILE = "crypto_secret_former"
SECRET_BYTES = 32

NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK}


class DataDirError(Exception):
    """The data directory, or the secret that belongs to it, cannot be used. The message is one sentence."""


def kept_secret(data_dir: Path) -> Secret | None:
    """The secret that is kept here. Raises `DataDirError`."""
    text = _read(data_dir / SECRET_FILE)
    return None if text is None else _secret(text.strip(), data_dir / SECRET_FILE)


def kept_former(data_dir: Path) -> tuple[Secret, ...]:
    """
    Those that were kept here before, while they are being changed. Read it after `kept_secret`: whoever changes them
    writes it first. Raises `DataDirError`.
    """
    path = data_dir / FORMER_FILE
    try:
        texts: object = orjson.loads(_read(path) or "[]")
    except orjson.JSONDecodeError:
        raise _damaged(path) from None
    if not isinstance(texts, list):
        raise _damaged(path)
    return tuple(_secret(text, path) for text in cast("list[object]", texts))


def make_secret(data_dir: Path) -> Secret:
    """Keep a new secret, or read the one that another process has written meanwhile. Raises `DataDirError`."""
    path = data_dir / SECRET_FILE
    draft = _draft_of(path)
    try:
        _write_new(draft, secrets.token_urlsafe(SECRET_BYTES).encode() + b"\n")
        try:
            # A link, because it fails where a file is already; a rename would take the other process's secret away.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
        _sync_folder(data_dir)
    except OSError as error:
        if error.errno in NO_HARD_LINKS:
            raise DataDirError(f"a secret cannot be kept in {data_dir}: set CRYPTO_SECRET instead") from error
        raise _cannot_keep(data_dir, error) from error
    kept = kept_secret(data_dir)
    if kept is None:
        raise DataDirError(f"the secret in {path} disappeared while it was written")
    return kept


def keep_instead(data_dir: Path, secret: Secret, former: Iterable[Secret]) -> bool:
    """
    Where a secret is kept, keep this one from now on, and until `forget_former` the former ones beside it. False where
    none is kept, or this one is already. Raises `DataDirError`.
    """
    kept = kept_secret(data_dir)
    if kept is None or kept == secret:
        return False
    try:
        # In this order: at no time may the secret that the database still has be nowhere.
        texts = [each.reveal() for each in dict.fromkeys((*former, kept))]
        _replace(data_dir / FORMER_FILE, orjson.dumps(texts))
        _replace(data_dir / SECRET_FILE, secret.reveal().encode())
    except OSError as error:
        raise _cannot_keep(data_dir, error) from error
    return True


def forget_former(data_dir: Path) -> bool:
    """Once nothing is encrypted under them. False where none are kept. Raises `DataDirError`."""
    try:
        (data_dir / FORMER_FILE).unlink()
        _sync_folder(data_dir)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataDirError(f"{data_dir / FORMER_FILE} cannot be removed: {error.strerror}") from error
    return True


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataDirError(f"the secret in {path} cannot be read: {reason}") from error


def _secret(text: object, path: Path) -> Secret:
    if not isinstance(text, str) or len(text) < SHORTEST_SECRET:
        raise _damaged(path)
    return Secret(text)


def _damaged(path: Path) -> DataDirError:
    return DataDirError(f"the secret in {path} is damaged: put the file back from a backup")


def _cannot_keep(data_dir: Path, error: OSError) -> DataDirError:
    return DataDirError(f"a secret cannot be kept in {data_dir}: {error.strerror}")


def _draft_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}")


def _write_new(path: Path, content: bytes) -> None:
    """A new file, whole and on the disk, or none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _replace(path: Path, content: bytes) -> None:
    """The file with this line in place of what it was, at once."""
    draft = _draft_of(path)
    _write_new(draft, content + b"\n")
    try:
        # Root may do this for the server's user, who must still be able to read it.
        owner = (path.parent / SECRET_FILE).stat()
        if hasattr(os, "chown"):  # Windows has no such owners
            os.chown(draft, owner.st_uid, owner.st_gid)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the file's name as durable as its content: a secret that a power cut takes away locks every channel."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
