"""Runs the app under uvicorn: uvloop, httptools, one or several workers, and an orderly end."""

import asyncio
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from starlette.types import Receive, Scope, Send

from ..config.settings import Settings
from .app import Tollway
from .version import version
from .worker_metrics import shared_folder

if TYPE_CHECKING:
    import uvicorn

CHARGES_WAIT = 1
"""The exit status of a server whose last charges are in the journal only, for the database did not take them."""


def run_server(settings: Settings, *, workers: int = 1) -> int:
    """
    Serve until SIGTERM or SIGINT; the exit status.

    On a signal the server stops accepting, lets open requests finish for `shutdown_timeout` seconds, writes down every
    charge, and ends with 0; with another status where it could not start, or not write the charges.
    """
    import uvicorn

    from .http_protocol import HttpProtocol

    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": HttpProtocol,
        "ws": websocket_protocol,
        "loop": "auto" if sys.platform == "win32" else "uvloop",
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "backlog": 2048,
        "timeout_graceful_shutdown": int(settings.shutdown_timeout) or None,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": ",".join(settings.trusted_proxies) or None,
        "lifespan": "on",
    }
    listens = f"Tollway {version()} listens on http://{settings.host}:{settings.port}"
    if workers > 1:
        os.environ.update(environ_of(settings))
        with shared_folder(settings.data_dir) as folder:
            config = uvicorn.Config(partial(worker, folder), factory=True, workers=workers, **options)
            return _run_workers(config, listens)
    from .draining import DrainingServer

    app = Tollway(settings, owns_process=True)

    class Server(DrainingServer):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(listens, file=sys.stderr, flush=True)

    server = Server(uvicorn.Config(app, **options))
    try:
        server.run()
    except (SystemExit, KeyboardInterrupt):  # the signal, raised once more after the orderly end
        if not server.started:
            raise
    return CHARGES_WAIT if app.unwritten or not server.started else 0


def websocket_protocol(**given: Any) -> asyncio.Protocol:
    """uvicorn's own, loaded by the first WebSocket: it is two megabytes that HTTP does not need."""
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    return cast("Any", AutoWebSocketsProtocol)(**given)


def _run_workers(config: "uvicorn.Config", listens: str) -> int:
    """Like `uvicorn.run`, which does not say how the workers have ended."""
    from .draining import Supervisor

    listener = config.bind_socket()
    listener.listen(config.backlog)  # who connects from now on waits until a worker is ready
    supervisor = Supervisor(config, sockets=[listener])
    print(listens, file=sys.stderr, flush=True)
    supervisor.run()
    # Those that end in order die of the signal, once more raised, and have a status below 0.
    return max(0, *(process.exitcode or 0 for process in supervisor.processes))


class _Worker(Tollway):
    """The app of a worker process, which ends with a status of its own where the signal's would hide what waits."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        if scope["type"] == "lifespan" and self.unwritten:
            sys.stderr.flush()
            os._exit(CHARGES_WAIT)


def worker(metrics_folder: Path) -> Tollway:
    """The app that each of several workers runs: settings from the environment."""
    return _Worker(Settings.from_environ(), owns_process=True, metrics_folder=metrics_folder)


def environ_of(settings: Settings) -> dict[str, str]:
    """What worker processes, which read their own environment, must be told of settings made on the command line."""
    environ = {"DATA_DIR": str(settings.data_dir.resolve()), "HOST": settings.host, "PORT": str(settings.port)}
    if settings.database_url:
        environ["SQL_DSN"] = settings.database_url
    return environ
