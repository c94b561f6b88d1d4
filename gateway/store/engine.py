"""What differs from database to database, behind one face: the store is the same on all of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from databases import Database
from sqlalchemy import ClauseElement, Delete, Insert, Select, Table, TextClause, Update
from sqlalchemy.engine import Dialect as CompilerDialect

from .errors import StoreError

Row: TypeAlias = Mapping[str, Any]
Query: TypeAlias = Select[*tuple[Any, ...]] | TextClause
Statement: TypeAlias = Insert | Update | Delete | TextClause


class Written(NamedTuple):
    """What a statement did: the id of the row it inserted (0 where there is none), and the rows it matched."""

    id: int
    rows: int


class Connection(Protocol):
    """What is used of `databases.core.Connection`, with the types it leaves out."""

    @property
    def raw_connection(self) -> Any: ...
    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *_: object) -> None: ...
    async def fetch_one(self, query: ClauseElement) -> "Record | None": ...
    async def fetch_all(self, query: ClauseElement) -> "list[Record]": ...
    async def execute(self, query: ClauseElement) -> Written: ...


class Record(Protocol):
    """A row as `databases` returns it."""

    def keys(self) -> Any: ...
    def values(self) -> Any: ...


class Engine(Protocol):
    """
    One database engine. `raw` is its driver's connection. None of the methods translates what the driver raises:
    `meaning` says what it means, None for a defect of ours.
    """

    @property
    def one_writer(self) -> bool:
        """Whether the transactions of this process take turns."""
        ...

    def open(self) -> Database:
        """The pool, not yet connected. Its connections answer `execute` with `Written`."""
        ...

    def meaning(self, error: BaseException) -> StoreError | None: ...

    async def begin(self, raw: Any) -> None: ...
    async def commit(self, raw: Any) -> None: ...
    async def rollback(self, raw: Any) -> None: ...

    def upsert(self, table: Table, row: Row) -> Insert:
        """Insert `row`, or replace the named columns of the row that has its primary key."""
        ...

    async def bulk(self, raw: Any, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows, one at least, that all have the keys of the first."""
        ...

    async def add_up(self, raw: Any, table: Table, rows: Sequence[Row]) -> None:
        """The same, but where a row has the primary key of one of them, what is no key is added to it."""
        ...


def insert_text(dialect: CompilerDialect, statement: Insert, names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """An INSERT of these columns as SQL with positional marks, and the order in which it takes their values."""
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    return compiled.string, tuple(compiled.positiontup or ())


def values_of(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[object, ...]]:
    """What the rows have in these columns."""
    return [tuple(row[name] for name in names) for row in rows]
