"""Turns failures into answers, in the dialect the caller speaks. The only layer that writes an error."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.error_envelope import error_answer
from ..adapters.errors import GatewayError, InternalError
from .state import state_of

log = logging.getLogger("tollway.errors")


class ErrorEnvelopeMiddleware:
    """
    Catch what the layers inside raise before the first byte and answer with the caller's own error shape.

    Reads `request_id` if it is there, writes `error`. Place it outside every layer that raises, and inside those that
    count and log, so that they see the status that the client sees. After the first byte it can only let go: the
    endpoint tells the client inside the stream, and whatever else breaks ends the connection.

        app = ErrorEnvelopeMiddleware(app)
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        def watched_send(message: Message):
            nonlocal started
            started = True
            return send(message)

        try:
            return await self.app(scope, receive, watched_send)
        except GatewayError as error:
            if started:
                # The answer stays without its end, which makes the server drop the connection: no client can take a
                # part for the whole. Nobody has to be told twice, least of all by a traceback for each.
                state_of(scope).error = error.code
                return
            failure = error
        except Exception:
            # A defect of ours. This path is never taken by a well or badly behaved client or upstream.
            log.exception("request %s failed", state_of(scope).request_id)
            failure = InternalError("The gateway failed. Its operator can find the reason under this request id.")
            if started:
                raise
        state = state_of(scope)
        state.error = failure.code
        answer = error_answer(failure, state.request_id)
        headers = answer.headers
        if state.attempt is not None:
            headers = [*headers, (b"x-tollway-attempts", b"%d" % state.attempt.number)]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
