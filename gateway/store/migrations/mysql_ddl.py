"""
How Alembic changes tables on MySQL and MariaDB.

These engines commit at every change of a table, so an upgrade that is cut short leaves its first part behind. The next
one runs the same revision again, and what is already there is passed over. What a revision does to rows must come
after its changes of tables: then it is committed together with the number of the revision, or not at all.

All tables compare text as the other engines do, by its characters: "Ada", "ada" and "ada " are three names.
"""

from typing import Any

from alembic.ddl.mysql import MySQLImpl
from sqlalchemy import Column, Constraint, Index, Table, Text, inspect
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.engine import Inspector

# The collation without padding is not named alike.
COLLATIONS = {True: "utf8mb4_nopad_bin", False: "utf8mb4_0900_bin"}


class ResumingImpl(MySQLImpl):
    """Alembic's own for MySQL, but it does nothing twice."""

    __dialect__ = "mysql"

    def version_table_impl(self, **kw: Any) -> Table:
        return self._ours(super().version_table_impl(**kw))

    def create_table(self, table: Table, **kw: Any) -> None:
        if self._inspector().has_table(table.name):
            return
        self._ours(table)
        for column in table.columns:
            if type(column.type) is Text:
                column.type = MEDIUMTEXT()  # TEXT ends at 64 KiB, and nowhere else
        super().create_table(table, **kw)

    def drop_table(self, table: Table, **kw: Any) -> None:
        if self._inspector().has_table(table.name):
            super().drop_table(table, **kw)

    def create_index(self, index: Index, **kw: Any) -> None:
        if index.name not in self._index_names(_table_of(index)):
            super().create_index(index, **kw)

    def drop_index(self, index: Index, **kw: Any) -> None:
        if index.name in self._index_names(_table_of(index)):
            super().drop_index(index, **kw)

    def add_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:
        if column.name not in self._column_names(table_name):
            super().add_column(table_name, column, **kw)

    def drop_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:
        if column.name in self._column_names(table_name):
            super().drop_column(table_name, column, **kw)  # pyright: ignore[reportUnknownMemberType]

    def add_constraint(self, const: Any, **kw: Any) -> None:
        if const.name not in self._constraint_names(_table_of(const)):
            super().add_constraint(const, **kw)

    def drop_constraint(self, const: Constraint, **kw: Any) -> None:
        if const.name in self._constraint_names(_table_of(const)):
            super().drop_constraint(const, **kw)

    def _ours(self, table: Table) -> Table:
        dialect: Any = self.dialect
        for name, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", COLLATIONS[dialect.is_mariadb])):
            table.dialect_kwargs.setdefault(f"mysql_{name}", value)
        table.primary_key.name = None  # it has one of its own, and warns of every other
        return table

    def _inspector(self) -> Inspector:
        connection: Any = self.connection
        return inspect(connection)

    def _index_names(self, table: str) -> set[str | None]:
        return {index["name"] for index in self._inspector().get_indexes(table)}

    def _column_names(self, table: str) -> set[str]:
        return {column["name"] for column in self._inspector().get_columns(table)}

    def _constraint_names(self, table: str) -> set[str | None]:
        """Those of unique and foreign keys."""
        found = self._inspector()
        return self._index_names(table) | {key["name"] for key in found.get_foreign_keys(table)}


def _table_of(part: Any) -> str:
    """The name of the table that an index or a constraint is of."""
    return part.table.name
