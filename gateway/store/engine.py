"""What differs from database to database, behind one face: the store is the same on all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from databases import Database
from sqlalchemy import ClauseElement, Delete, Insert, Select, Table, TextClause, Update
from sqlalchemy.engine import Dialect as CompilerDialect

from .errors import StoreError

Row: TypeAlias = Mapping[str, Any]
Columns: TypeAlias = tuple[str, ...]
Rows: TypeAlias = Sequence[tuple[Any, ...]]
"""Their values, in the order of some `Columns`."""
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

    async def bulk(self, raw: Any, table: Table, columns: Columns, rows: Rows) -> None:
        """Insert rows, one at least."""
        ...

    async def add_up(self, raw: Any, table: Table, columns: Columns, rows: Rows) -> None:
        """The same, but where a row has the primary key of one of them, what is no key is added to it."""
        ...

    async def replace(self, raw: Any, table: Table, columns: Columns, rows: Rows) -> None:
        """The same, but where a row has the primary key of one of them, what is no key is replaced."""
        ...


def insert_into(table: Table, _: Columns) -> Insert:
    """The INSERT that fails where a row is there already."""
    return table.insert()


class Inserts:
    """
    INSERTs as SQL with positional marks. Each is compiled once: that takes longer than writing some rows.

    `statement`: makes the INSERT of these columns into a table.
    """

    def __init__(self, dialect: CompilerDialect, statement: Callable[[Table, Columns], Insert]) -> None:
        self._dialect = dialect
        self._statement = statement
        self._known: dict[tuple[Table, Columns], tuple[str, Columns]] = {}

    def of(self, table: Table, columns: Columns, rows: Rows) -> tuple[str, Rows]:
        """The SQL, and the rows with their values in the order of its marks."""
        known = self._known.get((table, columns))
        if known is None:
            compiled = self._statement(table, columns).compile(dialect=self._dialect, column_keys=list(columns))
            known = self._known[table, columns] = compiled.string, tuple(compiled.positiontup or ())
        text, order = known
        if order == columns:
            return text, rows
        places = [columns.index(name) for name in order]
        return text, [tuple(row[place] for place in places) for row in rows]
