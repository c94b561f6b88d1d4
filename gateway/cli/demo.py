"""`tollway demo`: a gateway to look at, with nothing to set up."""

import asyncio
import os
import shlex
import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from ...config.channel import Channel, ChannelType
from ...config.secret import Secret
from ...config.settings import VARIABLES, Settings
from ..data_dir import DataDir, open_data_dir
from ..secrets_at_rest import hash_password
from ..store import Store, channels, tokens, users
from ..store.records import Role, TokenStatus
from ..store.tokens import new_key
from .arguments import Parser, finish
from .moments import now_ms
from .output import as_json
from .serve import add_address, at_address, start

FOLDER = Path("demo-data")
USER, TOKEN, CHANNEL = "root", "demo", "echo"
BALANCE = 50_000_000
MODELS = (
    "echo",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "tts-1",
    "whisper-1",
    "dall-e-3",
    "omni-moderation-latest",
)
ELSEWHERE = ("data_dir", "database_url", "log_database_url", "crypto_secret", "crypto_secret_former")
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104


def parser() -> Parser:
    parser = Parser(
        "tollway demo",
        description="Serve with a user root who has $100, a new key, and a channel that answers without a network. "
        f"Everything is kept in the folder {FOLDER}, which is made here, or in that of --data-dir; SQL_DSN, DATA_DIR, "
        "CRYPTO_SECRET and the like are not looked at, so that a demonstration never writes into a gateway in use. "
        "Each start makes a new key, and the one before is no longer accepted. Ctrl-C ends it.",
    )
    add_address(parser)
    finish(
        parser,
        demo,
        json="print the address, the key and the commands as one JSON document, and no access log",
        data_dir=f"where everything is kept. Default: {FOLDER}, whatever DATA_DIR says",
    )
    return parser


def demo(arguments: Namespace) -> int:
    folder = Path(FOLDER if arguments.data_dir is None else arguments.data_dir).absolute()
    settings = at_address(replace(Settings.from_environ(_environ()), data_dir=folder), arguments)
    key = asyncio.run(_prepare(settings))
    address = base_url(settings)
    commands = pasteable(address, key, folder)
    if arguments.json:
        # The access log goes to standard output too, and one document is what was asked for.
        settings = replace(settings, access_log=False)
        print(as_json({"address": address, "key": key.reveal(), "commands": commands}), flush=True)
    else:
        print(f"{address}\n\nPaste these into another terminal:\n\n" + "\n\n".join(commands) + "\n", flush=True)
    return start(settings, workers=1)


def _environ() -> dict[str, str]:
    """The environment without what would lead to another gateway's data."""
    passed_over = {each.name for each in VARIABLES if each.field in ELSEWHERE}
    return {name: text for name, text in os.environ.items() if name not in passed_over}


async def _prepare(settings: Settings) -> Secret:
    opened = await open_data_dir(settings)
    try:
        await _ensure_channel(opened)
        return await _fresh_key(opened, await _ensure_user(opened.store))
    finally:
        await opened.store.close()


async def _ensure_user(store: Store) -> int:
    user = await users.by_name(store, USER)
    if user is not None:
        return user.id
    # Nobody knows this password; `tollway user password` sets one that somebody does.
    password_hash = hash_password(new_key().reveal())
    return await users.create(
        store, username=USER, password_hash=password_hash, role=Role.ROOT, quota=BALANCE, now_ms=now_ms()
    )


async def _ensure_channel(opened: DataDir) -> None:
    found = await channels.list_all(opened.store, opened.vault)
    if not any(channel.type is ChannelType.ECHO for channel in found):
        channel = Channel(id=0, name=CHANNEL, type=ChannelType.ECHO, models=MODELS, test_model="echo")
        await channels.create(opened.store, opened.vault, channel, now_ms=now_ms())


async def _fresh_key(opened: DataDir, user_id: int) -> Secret:
    """A key is shown once, so each start makes one, and the last start's is no longer accepted."""
    for token in await tokens.of_user(opened.store, user_id):
        if token.name == TOKEN and token.status is TokenStatus.ENABLED:
            await tokens.set_status(opened.store, token.id, TokenStatus.DISABLED, now_ms=now_ms())
    _, key = await tokens.create(
        opened.store, opened.vault, user_id=user_id, name=TOKEN, unlimited=True, now_ms=now_ms()
    )
    return key


def base_url(settings: Settings) -> str:
    """Where a client on this machine reaches the server."""
    host = EVERYWHERE.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def pasteable(address: str, key: Secret, folder: Path) -> list[str]:
    """Three commands that work in any folder of another terminal."""
    logs = f"{program()} logs --data-dir {shlex.quote(str(folder))}"
    return [_chat(address, key, stream=False), _chat(address, key, stream=True), logs]


def _chat(address: str, key: Secret, *, stream: bool) -> str:
    fields = '"stream": true, ' if stream else ""
    body = f'{{"model": "gpt-4o-mini", {fields}"messages": [{{"role": "user", "content": "Hello!"}}]}}'
    quiet = "-N " if stream else ""
    return (
        f"curl {quiet}{address}/v1/chat/completions \\\n"
        f"  -H 'Authorization: Bearer {key.reveal()}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}'"
    )


def program() -> str:
    """How another terminal runs this very program: by name where it is on the PATH, else by its full path."""
    here = Path(sys.executable).with_name("tollway")
    found = shutil.which("tollway")
    if found is not None and (not here.exists() or os.path.samefile(found, here)):
        return "tollway"
    if here.exists():
        return shlex.quote(str(here))
    return f"{shlex.quote(sys.executable)} -m tollway.gateway"
