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
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from ..adapters.media.vendor_rules import MediaOptions
from ..adapters.requests.upstream_request import UpstreamRequestBuilder
from ..config.options import Options
from ..config.settings import Settings
from ..middleware.counting import Counting
from ..middleware.memory import MemoryLimiter
from ..middleware.metrics import RelayMetrics
from ..middleware.paths import route_path
from ..middleware.ports import Limiter
from .data_dir import open_stores
from .jobs import Jobs, housekeeping
from .ledger import StoreLedger, open_ledger
from .lines import LineWriter
from .process import settle_process, share_one_heap
from .process_metrics import register_process_metrics
from .relay.endpoint import RelayEndpoint
from .relay.models import ModelsEndpoint
from .secrets_at_rest import Vault
from .snapshot import Snapshot
from .stack import RelayParts, relay_stack
from .tokenizer import TokenCounter
from .upstream import Upstreams
from .upstream.port import Timeouts
from .version import version
from .worker_metrics import sharing

log = logging.getLogger("tollway.app")

FileId = tuple[int, int]


class Tollway:
    """The app. `lifespan` opens and closes all that it holds; a server calls it, a mounting app passes it on."""

    def __init__(self, settings: Settings, *, owns_process: bool = False, metrics_folder: Path | None = None) -> None:
        """`metrics_folder`: where the workers of one server share their figures; None for a server by itself."""
        self.settings = settings
        self.owns_process = owns_process
        self.metrics_folder = metrics_folder
        if owns_process:
            share_one_heap()
        self.registry = CollectorRegistry()
        self.metrics = RelayMetrics(self.registry)
        self.shown: Collector = self.registry
        """What `/metrics` shows: the figures of this process, or of all workers."""
        self.lines = LineWriter(sys.stdout.fileno()) if settings.access_log else None
        self.snapshot: Snapshot | None = None
        self.ledger: StoreLedger | None = None
        self.relay: ASGIApp | None = None
        self.unwritten = 0
        """Charges that the database had not taken when the lifespan ended: they are in the journal."""
        self._database_file: FileId | None = None

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Open the stores, the ledger and the upstreams, serve, and on the way out write down every charge."""
        async with AsyncExitStack() as stack:
            if self.lines is not None:
                stack.callback(self.lines.drain)
            opened = await stack.enter_async_context(open_stores(self.settings))
            snapshot = Snapshot(
                opened.store, opened.vault, defaults=Options(force_stream_usage=self.settings.force_stream_option)
            )
            await snapshot.load()
            stack.callback(self._count_unwritten)
            ledger = await stack.enter_async_context(
                open_ledger(opened.store, self.settings, snapshot.options, log_store=opened.log_store)
            )
            snapshot.balances_changed = ledger.changed
            snapshot.all_changed = ledger.budgets.load
            upstreams = Upstreams(
                allow_private=self.settings.allow_private_upstreams,
                idle_seconds=self.settings.idle_connection_timeout,
                max_idle=self.settings.max_idle_connections,
            )
            stack.push_async_callback(upstreams.close)
            collector = register_process_metrics(self.registry, snapshot, ledger, upstreams, self.trouble)
            stack.callback(self.registry.unregister, collector)
            housework = housekeeping(opened.store, opened.log_store, snapshot.options)
            work = Jobs(opened.store, ledger.core.holder, housework)
            stack.push_async_callback(_end, self._background(snapshot, work))
            limiter = await self._limiter(stack, opened.vault, snapshot)
            if self.metrics_folder is not None:
                self.shown = await stack.enter_async_context(sharing(self.registry, self.metrics_folder))
            self._database_file = _file_id(opened.store.address.path)
            self.snapshot, self.ledger = snapshot, ledger
            counter = TokenCounter()
            stack.callback(counter.close)
            media = MediaOptions(self.settings.get_media_token, self.settings.get_media_token_not_stream)
            self.relay = self._relay(snapshot, ledger, limiter, upstreams, Counting(counter, media))
            stack.callback(self._stop)
            if self.owns_process:
                settle_process()
            yield

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

    def _relay(
        self, snapshot: Snapshot, ledger: StoreLedger, limiter: Limiter, upstreams: Upstreams, counting: Counting
    ) -> ASGIApp:
        settings = self.settings
        endpoint = RelayEndpoint(
            upstream=upstreams,
            requests=UpstreamRequestBuilder(api_version=settings.azure_api_version, options=snapshot.options),
            timeouts=Timeouts(
                connect=settings.connect_timeout,
                first_byte=settings.first_byte_timeout,
                idle=settings.streaming_timeout,
                total=settings.relay_timeout,
            ),
            most_bytes=settings.max_answer_bytes,
        )
        return relay_stack(
            RelayParts(
                settings=settings,
                snapshot=snapshot,
                ledger=ledger,
                limiter=limiter,
                metrics=self.metrics,
                write_line=self.lines.write if self.lines is not None else None,
                endpoint=endpoint,
                models=ModelsEndpoint(pool=snapshot.pool, prices=snapshot.prices, options=snapshot.options),
                counting=counting,
            )
        )

    async def _limiter(self, stack: AsyncExitStack, vault: Vault, snapshot: Snapshot) -> Limiter:
        """Limits over all processes where there is a Redis, which then also tells of changes; else this process's."""
        url = self.settings.redis_url
        if not url:
            return MemoryLimiter()
        from .redis import Publisher, RedisLimiter, RedisMetrics, listen  # slow to import, and for some only

        prefix = f"tollway:{vault.token_hash('redis')[:16]}:"  # installations that share a Redis share no count
        limiter = await stack.enter_async_context(RedisLimiter.opened(url, options=snapshot.options, prefix=prefix))
        metrics = RedisMetrics(limiter)
        self.registry.register(metrics)
        stack.callback(self.registry.unregister, metrics)
        snapshot.tell_others = Publisher(url).publish
        stack.push_async_callback(_end, [asyncio.create_task(listen(url, snapshot.refresh))])
        return limiter

    def _background(self, snapshot: Snapshot, work: Jobs) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(snapshot.run()), asyncio.create_task(work.run())]
        if self.lines is not None:
            tasks.append(asyncio.create_task(self.lines.run()))
        return tasks

    def _stop(self) -> None:
        self.relay = None
        self.shown = self.registry

    def _count_unwritten(self) -> None:
        self.unwritten = 0 if self.ledger is None else self.ledger.pending

    def trouble(self) -> str:
        """
        What keeps a started app from taking new work; empty when nothing is known to.

        A database that is away is no such thing for as long as leases are spent and the journal has room: else a
        balancer would take all nodes out at once.
        """
        if self.ledger is not None and (trouble := self.ledger.trouble(time.monotonic())):
            return trouble
        if self.snapshot is not None and _file_id(self.snapshot.store.address.path) != self._database_file:
            return "The database's file is not the one that was opened."
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


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _respond(send: Send, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _alive(app: Tollway, scope: Scope, send: Send) -> None:
    """Alive: the process answers. Does not depend on any store, so that a database's trouble restarts nobody."""
    await _respond(send, 200, b'{"status":"ok"}')


async def _ready(app: Tollway, scope: Scope, send: Send) -> None:
    """Ready: started, and able to charge for what it serves."""
    if app.relay is None:
        return await _respond(send, 503, b'{"status":"not ready"}')
    if trouble := app.trouble():
        return await _respond(send, 503, orjson.dumps({"status": "not ready", "reason": trouble}))
    await _respond(send, 200, b'{"status":"ready"}')


async def _metrics(app: Tollway, scope: Scope, send: Send) -> None:
    """For Prometheus. Rendered in a thread: 500 series take milliseconds that streams would wait for."""
    token = app.settings.metrics_token
    if token and not _bears(scope, b"Bearer " + token.reveal().encode()):
        return await _respond(send, 401, b'{"error":{"message":"/metrics wants its token."}}')
    body = await asyncio.to_thread(generate_latest, app.shown)
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
