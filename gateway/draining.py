"""
uvicorn's servers with an end that resets nobody.

The kernel accepts connections before we do, and resets those that still wait for us when their listener is closed. Here
they are taken over at the last moment, and served.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess

INTERRUPTED = 130
"""The exit status of a server whose end did not wait for its last charges: they are in the journal only."""


class DrainingServer(uvicorn.Server):
    """
    Stops listening, serves whoever has connected by then, and ends.

    A second Ctrl-C cuts off what is still open, as the end of `timeout_graceful_shutdown` does, and the charges are
    written all the same; a third ends the process at once.
    """

    _ending: asyncio.AbstractEventLoop | None = None
    """The loop, from when the end has begun."""
    _cut = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGINT or not self.should_exit:
            super().handle_exit(sig, frame)
        elif self._cut:
            os._exit(INTERRUPTED)
        # Before the end has begun it is the same Ctrl-C, which a terminal sends and a wrapper passes on.
        elif self._ending is not None:
            # Not by uvicorn's `force_exit`, which leaves the app's own end out and its tasks to be torn down.
            self._cut = True
            self._ending.call_soon_threadsafe(self._cut_off)

    def _cut_off(self) -> None:
        for task in self.server_state.tasks:
            task.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending = asyncio.get_running_loop()
        logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
        if count := len(self.server_state.tasks):
            limit = self.config.timeout_graceful_shutdown
            print(
                f"Waiting for {count} open request{'s' if count > 1 else ''} to end"
                f"{f', for {limit} s at most' if limit else ''}; Ctrl-C cuts them off",
                file=sys.stderr,
                flush=True,
            )
        with ExitStack() as stack:
            listeners = [
                stack.enter_context(socket.socket(fileno=os.dup(listener.fileno())))
                for server in self.servers
                for listener in server.sockets
            ]
            for server in self.servers:
                server.close()
            waiting = [client for listener in listeners for client in _waiting(listener)]
        loop = asyncio.get_running_loop()
        for client in waiting:
            with suppress(OSError):  # it has gone already
                await loop.connect_accepted_socket(self._protocol, client)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Any", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _is_no_cut(record: logging.LogRecord) -> bool:
    """Not a request's end that was wanted, for which uvicorn would print where it was, in fifty lines."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class Worker(multiprocess.Process):
    """A worker process."""

    def start(self) -> None:
        # A terminal sends Ctrl-C to it as well. Until its server listens for that, the supervisor's word is enough, and
        # Python would end it with a traceback. Blocked here meanwhile, for a signal that is ignored is lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            super().start()
        finally:
            signal.signal(signal.SIGINT, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        super().target(sockets)

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = DrainingServer(config=self.config)
        return self._server


class Supervisor(Multiprocess):
    """Runs workers that end so."""

    def run(self) -> None:
        multiprocess.Process = Worker  # there is no other way to say which server a worker runs
        super().run()

    def terminate_all(self) -> None:
        # Workers close their copies. While one were left here, clients would connect to where nobody accepts.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    listener.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            client, _ = listener.accept()
            client.setblocking(False)
            yield client
