"""
uvicorn's servers with an end that resets nobody.

The kernel accepts connections before we do, and resets those that still wait for us when their listener is closed. Here
they are taken over at the last moment, and served.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, cast

import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess


class DrainingServer(uvicorn.Server):
    """Stops listening, serves whoever has connected by then, and ends."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
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


class Worker(multiprocess.Process):
    """A worker process."""

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
