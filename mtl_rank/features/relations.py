"""What the point-in-time join reads: a relation, as SQL text with the values bound to it."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from mtl_rank.errors import DataError, did_you_mean
from mtl_rank.features.interrupts import interruptible
from mtl_rank.features.sql import quote, quote_all

PANDAS_INDEX = "__index_level_"

_NANOSECONDS = re.compile(r"\b(TIMESTAMP|TIMESTAMPTZ)_NS\b")


def stamp(file: str) -> tuple[int, ...]:
    """What tells a file from one that took its place; () when it is gone."""
    try:
        stat = os.stat(file)  # noqa: PTH116, a name, called for thousands of files
    except FileNotFoundError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class Relation:
    """Rows that DuckDB can read.

    label: what a message calls it, such as "feature view 'user_stats'".
    sql: what stands after FROM; its alias is always `s`.
    columns: names and DuckDB types.
    position: SQL of a number that tells the rows apart and is the same at every read; None = it has none.
    position_bits: how many bits that number needs.
    values: what is bound to the parameters of `sql`.
    catalog: the attached database whose tables `sql` names; None = the connection's own.
    files: those whose rows a position counts, as `stamp` knew them.
    """

    label: str
    sql: str
    columns: Mapping[str, str]
    position: str | None = None
    position_bits: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    catalog: str | None = None
    files: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def check_unchanged(self) -> None:
        """Raises DataError when a file was replaced since: a position in it would be another row's."""
        for file, before in self.files.items():
            if stamp(file) != before:
                raise DataError(f"{self.label}: {file} changed while it was read; start again")

    def value(self, column: str) -> str:
        """SQL of a column; nanosecond timestamps become microseconds, which all of Feast can read."""
        kind = self.columns[column]
        coarse = _NANOSECONDS.sub(r"\1", kind)
        return f"s.{quote(column)}" if coarse == kind else f"CAST(s.{quote(column)} AS {coarse})"


def columns_of(con: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Names and DuckDB types of the columns of what stands after FROM. Reads no rows."""
    head = con.sql(f"SELECT * FROM {sql} LIMIT 0", params=dict(values) or None)
    return dict(zip(head.columns, map(str, head.types), strict=True))


def arrow_schema(con: duckdb.DuckDBPyConnection, relation: Relation) -> pa.Schema:
    """The columns as Arrow types, lists spelled as Arrow and Feast spell them. Reads no rows.

    The index that pandas may have written is no column.
    """
    columns = [column for column in relation.columns if not column.startswith(PANDAS_INDEX)]
    select = ", ".join(f"{relation.value(column)} AS {quote(column)}" for column in columns)
    with in_catalog(con, relation.catalog):
        head = con.sql(
            f"SELECT {select} FROM {relation.sql} AS s LIMIT 0", params=dict(relation.values) or None
        )
        return pa.schema([(field.name, _plain(field.type)) for field in head.to_arrow_table().schema])


def arrow_types(con: duckdb.DuckDBPyConnection, relation: Relation) -> list[tuple[str, str]]:
    """Names and Arrow types of the columns as text, which Feast's type map knows."""
    return [(field.name, str(field.type)) for field in arrow_schema(con, relation)]


def copy_rows(
    con: duckdb.DuckDBPyConnection,
    name: str,
    relation: Relation,
    columns: Iterable[str],
    *,
    head: bool = False,
) -> Relation:
    """The rows in a table of the connection, which spills to disk when large; there they have a position.

    head: only the columns, without the rows.
    """
    kinds = {column: relation.columns[column] for column in columns}
    select = f"SELECT {quote_all(kinds)} FROM {relation.sql} AS s{' LIMIT 0' if head else ''}"
    with in_catalog(con, relation.catalog):
        con.execute(f"CREATE TABLE memory.main.{quote(name)} AS {select}", dict(relation.values))
    count = con.sql(f"SELECT count(*) FROM {quote(name)}").fetchall()[0][0]
    return Relation(relation.label, quote(name), kinds, "s.rowid", int(count).bit_length())


@contextmanager
def in_catalog(con: duckdb.DuckDBPyConnection, catalog: str | None) -> Iterator[None]:
    """Table names mean those of an attached database."""
    if catalog is None:
        yield
        return
    con.execute(f"USE {quote(catalog)}")
    try:
        yield
    finally:
        con.execute("USE memory")


def single_select(con: duckdb.DuckDBPyConnection, sql: str, label: str) -> str:
    """One SELECT statement as what stands after FROM. Raises DataError when the text is anything else."""
    with readable(label):
        statements = con.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise DataError(f"{label}: its SQL must be one SELECT statement")
    # A comment at its end would swallow the bracket.
    return f"({statements[0].query.rstrip().rstrip(';')}\n)"


@contextmanager
def readable(label: str) -> Iterator[None]:
    """Turn what DuckDB or Arrow says about an input into a DataError that names the input; Ctrl-C stays what it is."""
    try:
        with interruptible():
            yield
    except FileNotFoundError as error:
        raise DataError(f"{label}: does not exist: {first_line(error)}") from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise DataError(f"{label}: cannot be read: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, without its position in the SQL and its general advice."""
    return str(error).strip().split("\n", maxsplit=1)[0]


def nothing_at(path: Path) -> str:
    """What to tell about a path that does not exist."""
    if not path.parent.is_dir():
        return f"{path} does not exist, nor does its folder"
    near = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
    return f"{path} does not exist; {near}"


def _plain(kind: pa.DataType) -> pa.DataType:
    """DuckDB calls the elements of a list `l`, Arrow calls them `item`."""
    return pa.list_(_plain(kind.value_type)) if pa.types.is_list(kind) else kind
