"""Runs the app under uvicorn: uvloop, httptools, one or several workers, and an orderly end."""

import os
import sys
from typing import Any

from ..config.settings import Settings
from .version import version


def run_server(settings: Settings, *, workers: int = 1) -> int:
    """
    Serve until SIGTERM or SIGINT; the exit status.

    On a signal the server stops accepting, lets open requests finish for `shutdown_timeout` seconds, writes down every
    charge, and ends with 0.
    """
    import uvicorn

    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": "httptools",
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
    print(f"Tollway {version()} listens on http://{settings.host}:{settings.port}", file=sys.stderr, flush=True)
    if workers > 1:
        os.environ.update(environ_of(settings))
        uvicorn.run("tollway.gateway.app:from_environ", factory=True, workers=workers, **options)
        return 0
    from .app import Tollway

    server = uvicorn.Server(uvicorn.Config(Tollway(settings, owns_process=True), **options))
    server.run()
    return 0 if server.started else 1


def environ_of(settings: Settings) -> dict[str, str]:
    """What worker processes, which read their own environment, must be told of settings made on the command line."""
    environ = {"DATA_DIR": str(settings.data_dir.resolve()), "HOST": settings.host, "PORT": str(settings.port)}
    if settings.database_url:
        environ["SQL_DSN"] = settings.database_url
    return environ
