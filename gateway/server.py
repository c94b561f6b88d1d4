"""Runs the app under uvicorn: uvloop, httptools, one or several workers, and an orderly end."""

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from ..config.settings import Settings
from .app import Tollway
from .version import version

if TYPE_CHECKING:
    import uvicorn

CHARGES_LOST = 1
"""The exit status of a server whose last charges could not be written to the database."""


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
        print(listens, file=sys.stderr, flush=True)
        os.environ.update(environ_of(settings))
        return _run_workers(uvicorn.Config("tollway.gateway.server:worker", factory=True, workers=workers, **options))
    app = Tollway(settings, owns_process=True)

    class Server(uvicorn.Server):
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
    return CHARGES_LOST if app.unwritten or not server.started else 0


def _run_workers(config: "uvicorn.Config") -> int:
    """Like `uvicorn.run`, which does not say how the workers have ended."""
    from uvicorn.supervisors import Multiprocess

    supervisor = Multiprocess(config, sockets=[config.bind_socket()])
    supervisor.run()
    # Those that end in order die of the signal, once more raised, and have a status below 0.
    return max(0, *(process.exitcode or 0 for process in supervisor.processes))


class _Worker(Tollway):
    """The app of a worker process, which ends with a status of its own where the signal's would hide a loss."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        if scope["type"] == "lifespan" and self.unwritten:
            sys.stderr.flush()
            os._exit(CHARGES_LOST)


def worker() -> Tollway:
    """The app that each of several workers runs: settings from the environment."""
    return _Worker(Settings.from_environ(), owns_process=True)


def environ_of(settings: Settings) -> dict[str, str]:
    """What worker processes, which read their own environment, must be told of settings made on the command line."""
    environ = {"DATA_DIR": str(settings.data_dir.resolve()), "HOST": settings.host, "PORT": str(settings.port)}
    if settings.database_url:
        environ["SQL_DSN"] = settings.database_url
    return environ
