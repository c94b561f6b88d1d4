"""
The composition root: the only place that knows every part.

`create_app(settings)` gives an ASGI app that serves the relay, health and metrics. It runs under any server, and mounts
at any prefix of another app:

    tollway = create_app(Settings(data_dir=Path("data")))
    app = FastAPI(lifespan=tollway.lifespan)
    app.mount("/llm", tollway)
"""

import asyncio
import hmac
import logging
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from ..adapters.exchange import ExchangeBuilder
from ..config.options import Options
from ..config.settings import Settings
from ..middleware.memory import MemoryLimiter
from ..middleware.metrics import RelayMetrics
from ..middleware.paths import route_path
from .data_dir import keep_charges, open_data_dir
from .ledger.store_ledger import StoreLedger
from .lines import LineWriter
from .process import settle_process, share_one_heap
from .process_metrics import register_process_metrics
from .relay.endpoint import RelayEndpoint
from .relay.models import ModelsEndpoint
from .snapshot import Snapshot
from .stack import RelayParts, relay_stack
from .store import StoreError, changes
from .upstream import Upstreams
from .upstream.port import Timeouts
from .version import version

log = logging.getLogger("tollway.app")

FileId = tuple[int, int]


class Tollway:
    """The app. `lifespan` opens and closes all that it holds; a server calls it, a mounting app passes it on."""

    def __init__(self, settings: Settings, *, owns_process: bool = False) -> None:
        self.settings = settings
        self.owns_process = owns_process
        if owns_process:
            share_one_heap()
        self.registry = CollectorRegistry()
        self.metrics = RelayMetrics(self.registry)
        self.lines = LineWriter(sys.stdout.fileno()) if settings.access_log else None
        self.snapshot: Snapshot | None = None
        self.relay: ASGIApp | None = None
        self.unwritten = 0
        """Charges that the database had not taken when the lifespan ended."""
        self._database_file: FileId | None = None

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Open the store and the upstreams, serve, and on the way out write down every charge before closing."""
        settings = self.settings
        opened = await open_data_dir(settings)
        snapshot = Snapshot(
            opened.store, opened.vault, defaults=Options(force_stream_usage=settings.force_stream_option)
        )
        upstreams = Upstreams(
            allow_private=settings.allow_private_upstreams,
            idle_seconds=settings.idle_connection_timeout,
            max_idle=settings.max_idle_connections,
        )
        tasks: list[asyncio.Task[None]] = []
        collector: Collector | None = None
        try:
            await snapshot.load()
            self._database_file = _file_id(opened.store.address.path)
            self.snapshot = snapshot
            self.relay = self._relay(snapshot, upstreams)
            collector = register_process_metrics(self.registry, snapshot, upstreams)
            tasks += asyncio.create_task(snapshot.run()), asyncio.create_task(snapshot.ledger.run())
            if self.lines is not None:
                tasks.append(asyncio.create_task(self.lines.run()))
            if self.owns_process:
                settle_process()
            yield
        finally:
            self.relay = None
            if collector is not None:
                self.registry.unregister(collector)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await upstreams.close()
            await self._write_last_charges(snapshot.ledger)
            await opened.store.close()
            if self.lines is not None:
                self.lines.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Split by path: the relay's door, and the few pages that are for operators."""
        if scope["type"] == "lifespan":
            return await self._serve_lifespan(receive, send)
        page = PAGES.get(route_path(scope)) if scope["type"] == "http" else None
        if page is not None:
            return await page(self, scope, send)
        if self.relay is None:
            raise RuntimeError(
                "Tollway has not been started: pass its lifespan on, as in FastAPI(lifespan=tollway.lifespan)"
            )
        await self.relay(scope, receive, send)

    def _relay(self, snapshot: Snapshot, upstreams: Upstreams) -> ASGIApp:
        settings = self.settings
        endpoint = RelayEndpoint(
            upstream=upstreams,
            exchanges=ExchangeBuilder(api_version=settings.azure_api_version, options=snapshot.options),
            timeouts=Timeouts(
                settings.connect_timeout,
                settings.first_byte_timeout,
                settings.streaming_timeout,
                settings.relay_timeout,
            ),
            most_bytes=settings.max_answer_bytes,
        )
        return relay_stack(
            RelayParts(
                settings,
                snapshot,
                MemoryLimiter(),
                self.metrics,
                self.lines.write if self.lines is not None else None,
                endpoint,
                ModelsEndpoint(pool=snapshot.pool),
            )
        )

    async def _write_last_charges(self, ledger: StoreLedger) -> None:
        """Into the database, or else into a file, so that an operator can still charge them."""
        try:
            if await ledger.flush():
                return
        except Exception:
            log.exception("the last charges were not written")
        records = ledger.unwritten()
        self.unwritten = len(records)
        path = await asyncio.to_thread(keep_charges, self.settings.data_dir, records)
        log.error(
            "%d charges with a quota of %d in all were not written to the database: they are %s",
            len(records),
            sum(record.quota for record in records),
            f"in {path}" if path is not None else "lost, for no file could be written either",
        )

    def trouble(self) -> str:
        """What keeps a started app from writing down what it serves; empty when nothing is known to."""
        if self.snapshot is not None and self.snapshot.ledger.failing:
            return "charges cannot be written to the database"
        if self.snapshot is not None and _file_id(self.snapshot.store.address.path) != self._database_file:
            return "the database's file is not the one that was opened"
        return ""

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        """The ASGI lifespan protocol, around `lifespan`."""
        await receive()
        context = self.lifespan()
        try:
            await context.__aenter__()
        except BaseException as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await context.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})


async def _respond(send: Send, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _alive(app: Tollway, scope: Scope, send: Send) -> None:
    """Alive: the process answers. Does not depend on any store, so that a database's trouble restarts nobody."""
    await _respond(send, 200, b'{"status":"ok"}')


async def _ready(app: Tollway, scope: Scope, send: Send) -> None:
    """Ready: started, the store answers, and charges reach it."""
    snapshot = app.snapshot
    if app.relay is not None and snapshot is not None:
        if trouble := app.trouble():
            return await _respond(send, 503, orjson.dumps({"status": "not ready", "reason": trouble}))
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(2):
                await changes.latest(snapshot.store)
                return await _respond(send, 200, b'{"status":"ready"}')
    await _respond(send, 503, b'{"status":"not ready"}')


async def _metrics(app: Tollway, scope: Scope, send: Send) -> None:
    """For Prometheus. Rendered in a thread: 500 series take milliseconds that streams would wait for."""
    token = app.settings.metrics_token
    if token and not _bears(scope, b"Bearer " + token.reveal().encode()):
        return await _respond(send, 401, b'{"error":{"message":"/metrics wants its token."}}')
    body = await asyncio.to_thread(generate_latest, app.registry)
    await _respond(send, 200, body, b"text/plain; version=0.0.4; charset=utf-8")


async def _about(app: Tollway, scope: Scope, send: Send) -> None:
    """What this is, for whoever opens the base URL."""
    about: dict[str, Any] = {
        "name": "Tollway",
        "version": version(),
        "api": f"{scope.get('root_path', '')}/v1",
        "health": f"{scope.get('root_path', '')}/healthz",
    }
    await _respond(send, 200, orjson.dumps(about))


def _file_id(path: str) -> FileId | None:
    """Which file lies at a path; None for none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _bears(scope: Scope, wanted: bytes) -> bool:
    return any(name == b"authorization" and hmac.compare_digest(value, wanted) for name, value in scope["headers"])


PAGES = {
    "/": _about,
    "/healthz": _alive,
    "/health/liveliness": _alive,
    "/readyz": _ready,
    "/health/readiness": _ready,
    "/metrics": _metrics,
}


def create_app(settings: Settings) -> Tollway:
    """An app with these settings. Nothing is opened before its lifespan begins, and no environment is read."""
    return Tollway(settings)


def from_environ() -> Tollway:
    """The app that `uvicorn --factory tollway.gateway.app:from_environ` runs: settings from the environment."""
    return Tollway(Settings.from_environ(), owns_process=True)
