"""Entity rows: the keys and times that features are wanted for, in whatever form they come.

A pandas, Polars or Arrow table; a parquet file, folder or glob; a SELECT for DuckDB; a table of a DuckDB file.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa

from mtl_rank.errors import DataError, did_you_mean
from mtl_rank.features.duckdb_source import DuckDBSource, duckdb_relation
from mtl_rank.features.kinds import rounded_from
from mtl_rank.features.parquet import is_glob, parquet_relation
from mtl_rank.features.relations import Relation, readable, single_select
from mtl_rank.features.sql import quote

LABEL = "entity rows"
EVENT_TIMESTAMP = "event_timestamp"

_TABLE_OF_FILE = re.compile(r"(?P<path>.+\.(?:duckdb|ddb|db)):(?P<table>[^:]+)")


@dataclass(frozen=True)
class RowsTable:
    """Entity rows under a name on a connection, their columns in order with DuckDB types.

    query: they are the result of a query, whose rows may come in another order when it runs again.
    """

    name: str
    columns: Mapping[str, str]
    query: bool = False


def read_rows(con: duckdb.DuckDBPyConnection, name: str, rows: Any, base: Path) -> RowsTable:
    """Give entity rows the name `name` on a connection. A query is not run yet.

    rows: a pandas.DataFrame, polars.DataFrame, polars.LazyFrame or pyarrow.Table; or text: a parquet path, folder
        or glob, one SELECT, or `file.duckdb:table`. Relative paths start at `base`.
    Raises DataError when the rows cannot be read or two columns have one name.
    """
    query = False
    with readable(LABEL):
        if isinstance(rows, str):
            relation, query = _from_text(con, name, rows.strip(), base)
        else:
            con.register(f"{name} in memory", as_arrow(rows))
            relation = con.table(f"{name} in memory")
        columns = relation.columns
        _check_names(columns)
        relation.create_view(name)
        return RowsTable(name, dict(zip(columns, map(str, relation.types), strict=True)), query)


def as_arrow(rows: Any) -> pa.Table:
    """A table in memory as Arrow. Raises DataError for anything that is not one."""
    if isinstance(rows, pd.DataFrame):
        _check_names([str(column) for column in rows.columns])
        return pa.Table.from_pandas(_with_times(rows), preserve_index=False)
    if isinstance(rows, pl.LazyFrame):
        rows = rows.collect()
    if isinstance(rows, pl.DataFrame):
        _check_names(rows.columns)
        return rows.to_arrow()
    if isinstance(rows, pa.Table):
        _check_names(rows.column_names)
        return rows
    raise DataError(
        f"{LABEL}: a {type(rows).__name__} is not a table. "
        "Give a pandas, Polars or Arrow table, a parquet path, or one SELECT"
    )


def event_timestamp(rows: RowsTable) -> str:
    """The column `event_timestamp`, or else the only column of a timestamp type.

    Raises DataError when there is no such column, or it is neither a time nor text.
    """
    times = [column for column, kind in rows.columns.items() if kind.startswith("TIMESTAMP")]
    if EVENT_TIMESTAMP not in rows.columns:
        if len(times) == 1:
            return times[0]
        why = "and several columns are timestamps" if times else did_you_mean(EVENT_TIMESTAMP, rows.columns)
        raise DataError(f"{LABEL}: no column {EVENT_TIMESTAMP!r}; {why}")
    kind = rows.columns[EVENT_TIMESTAMP]
    if EVENT_TIMESTAMP not in times and kind not in ("DATE", "VARCHAR", '"NULL"'):
        raise DataError(f"{LABEL}: {EVENT_TIMESTAMP} is {kind}; it must be a timestamp")
    return EVENT_TIMESTAMP


def check_times(con: duckdb.DuckDBPyConnection, table: str, timestamp: str, kind: str) -> None:
    """Raises DataError when the event timestamps are text that is not a time."""
    if kind != "VARCHAR":
        return
    column = quote(timestamp)
    wrong = f"{column} IS NOT NULL AND TRY_CAST({column} AS TIMESTAMPTZ) IS NULL"
    found = con.sql(f"SELECT {column} FROM {quote(table)} WHERE {wrong} LIMIT 1").fetchall()
    if found:
        raise DataError(f"{LABEL}: {timestamp} is not a time: {found[0][0]!r}; write 2026-01-31 13:45:00")


def check_exact(
    con: duckdb.DuckDBPyConnection, table: str, key: str, kinds: tuple[str, str], label: str
) -> None:
    """Raises DataError when keys are compared with a source as floating-point numbers that round some of them.

    kinds: of the key in the entity rows, and in the source.
    """
    limit = rounded_from(*kinds)
    if limit is None:
        return
    number = f"CAST({quote(key)} AS DOUBLE)"
    rounded = f"isfinite({number}) AND abs({number}) >= {limit}"
    found = con.sql(f"SELECT {quote(key)} FROM {quote(table)} WHERE {rounded} LIMIT 1").fetchall()
    if found:
        raise DataError(
            f"{label}: join key {key!r} is {kinds[0]} in the entity rows but {kinds[1]} in its source; compared as "
            f"floating-point numbers, ids such as {int(found[0][0])} are taken for their neighbours: make both BIGINT "
            "(in pandas Int64, since a missing id turns int64 into float64)"
        )


def _from_text(
    con: duckdb.DuckDBPyConnection, name: str, text: str, base: Path
) -> tuple[duckdb.DuckDBPyRelation, bool]:
    """The relation, and whether it is a query."""
    table = _TABLE_OF_FILE.fullmatch(text)
    if table and (not re.search(r"\s", table["path"]) or (base / table["path"]).is_file()):
        source = DuckDBSource(path=table["path"], table=table["table"])
        relation = duckdb_relation(con, f"{name} file", source, base, LABEL)
        # A view is a query: its rows may come in another order each time.
        return _whole(con, relation), relation.position is None
    if text.endswith(".parquet") or _is_glob(text) or os.path.isdir(base / text):  # noqa: PTH112, SQL is no path
        return _whole(con, parquet_relation(con, f"{name}_files", text, base, LABEL)), False
    selected = single_select(con, text, LABEL)
    _check_paths(text, base)
    # Wrapped in another SELECT, the second of two equal names would be given a new one.
    _check_names(con.sql(text).columns)
    return con.sql(f"SELECT * FROM {selected}"), True


def _check_paths(text: str, base: Path) -> None:
    """DuckDB would read a file of the current folder before one of the same name in `base`.

    Raises DataError rather than read another file than the one that is meant.
    """
    here = Path.cwd()
    if here.resolve() == base.resolve():
        return
    for single, double in re.findall(r"'((?:[^']|'')*)'|\"((?:[^\"]|\"\")*)\"", text):
        path = single.replace("''", "'") or double.replace('""', '"')
        if path and not os.path.isabs(path) and os.path.isfile(here / path):  # noqa: PTH113, PTH117, may be no path
            raise DataError(
                f"{LABEL}: {path!r} in the SQL starts at {base}, and the current folder has a file of that name; "
                "write the absolute path, or run in another folder"
            )


def _is_glob(text: str) -> bool:
    return is_glob(text) and not re.search(r"\s", text)


def _whole(con: duckdb.DuckDBPyConnection, relation: Relation) -> duckdb.DuckDBPyRelation:
    return con.sql(f"SELECT * FROM {relation.sql} AS s", params=dict(relation.values) or None)


def _check_names(columns: list[str]) -> None:
    """DuckDB does not tell names apart that differ in case alone."""
    twice = [column for column, count in Counter(column.lower() for column in columns).items() if count > 1]
    if twice:
        raise DataError(f"{LABEL}: two columns are named {twice[0]!r}; rename or drop one")


def _with_times(rows: pd.DataFrame) -> pd.DataFrame:
    """Event timestamps in an object column, as text or Python datetimes of any zones, become timestamps."""
    if EVENT_TIMESTAMP not in rows.columns:
        return rows
    column = rows[EVENT_TIMESTAMP]
    if not (pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)):
        return rows
    try:
        return rows.assign(**{EVENT_TIMESTAMP: pd.to_datetime(column, utc=True, format="mixed")})
    except (ValueError, TypeError) as error:
        raise DataError(f"{LABEL}: {EVENT_TIMESTAMP} is not a time: {error}".split("\n")[0]) from error
