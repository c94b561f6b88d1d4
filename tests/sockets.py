"""The end of a connection in tests."""

import asyncio


def break_off(writer: asyncio.StreamWriter) -> None:
    """Abort, whatever has become of the connection: CPython 3.11 fails at one that was lost while it was closing."""
    transport = writer.transport
    if not transport.is_closing() or transport.get_write_buffer_size():
        transport.abort()
