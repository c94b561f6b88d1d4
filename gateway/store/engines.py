"""Which engine serves an address."""

from .address import Address
from .engine import Engine


def engine_for(address: Address) -> Engine:
    """The engine of an address. A driver is imported only for a database that needs it."""
    server = address.server
    if server is None:
        from .sqlite_engine import SqliteEngine

        return SqliteEngine(address)
    if server.dialect == "postgresql":
        from .postgresql import PostgresqlEngine

        return PostgresqlEngine(server)
    from .mysql import MysqlEngine

    return MysqlEngine(server)
