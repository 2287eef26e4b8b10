"""Entity rows copied, narrow and checked, to a file of their own.

What is trained or scored is then one fixed input with a number for each row, whatever happens to the query
or the files behind it meanwhile.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from mtl_rank.errors import DataError, did_you_mean
from mtl_rank.features.asof import instant
from mtl_rank.features.entity_rows import read_rows
from mtl_rank.features.interrupts import interruptible
from mtl_rank.features.sources import first_line
from mtl_rank.features.sql import Engine, operators, quote, quote_all

EVENT_TIMESTAMP = "event_timestamp"
ROW_NUMBER = "mtlrank_row"

SNAPSHOT_FORMAT = "FORMAT parquet, COMPRESSION snappy, DICTIONARY_SIZE_LIMIT 1000"
"""Quick to write and to read: a snapshot is read twice or three times, then removed. Building dictionaries for
columns of many values takes a third of the writing."""

_NARROWER = {"HUGEINT": "BIGINT", "UHUGEINT": "UBIGINT"}
# Operators of DuckDB that hand on rows as they come, on any number of threads. Not ORDER BY: of ties it takes any.
_KEEP_ORDER = {
    *("SEQ_SCAN", "PARQUET_SCAN", "READ_PARQUET", "READ_CSV", "COLUMN_DATA_SCAN", "DUMMY_SCAN", "RANGE"),
    *("EMPTY_RESULT", "PROJECTION", "FILTER", "UNNEST", "LIMIT", "STREAMING_LIMIT"),
}
# What Python has dates for; infinity is none.
_POSSIBLE = "WHERE isfinite(event_timestamp) AND year(event_timestamp) BETWEEN 1 AND 9999"


@dataclass(frozen=True)
class Snapshot:
    """A parquet file of entity rows in their order, each with its number in `mtlrank_row`.

    first, last: the range of the event timestamps. columns: name -> DuckDB type.
    digest: of all values and their order.
    """

    path: Path
    rows: int
    first: datetime
    last: datetime
    columns: Mapping[str, str]
    digest: str


def snapshot_rows(
    rows: Any,
    base: Path,
    columns: Sequence[str],
    out: Path,
    defaults: Mapping[str, Any] | None = None,
    as_of: datetime | None = None,
    before: datetime | None = None,
) -> Snapshot:
    """Copy `columns` and the event timestamp of entity rows to the parquet file `out`, in their order.

    Where a query gives its rows in another order each time that it runs, it is that of time and then of `columns`.

    rows: a table, or text: a parquet path, folder or glob, one SELECT for DuckDB, or `file.duckdb:table`;
        relative paths start at `base`.
    defaults: values for columns that the rows may lack.
    as_of: the event timestamp of every row; None = the rows bring their own.
    before: leave out rows at or after this time.

    Raises DataError when there are no rows, a column is missing, or a row has no time.
    """
    shown = f"{rows}" if isinstance(rows, str) else "the table"
    con = Engine(search_path=base).connect()
    try:
        table = read_rows(con, "rows", rows, base)
        present = table.columns
        if not table.query:
            # A plain copy: with more threads, pieces that are out of turn wait in memory, gigabytes of ten million
            # rows, and take more processor time in all.
            con.execute("SET threads = 1")
        selected, values = _select_list(columns, present, defaults or {}, shown)
        if as_of is None:
            time = _time_of_rows(present, shown)
        else:
            time, values["as_of"] = "CAST($as_of AS TIMESTAMPTZ)", as_of
        condition = "TRUE"
        if before is not None:
            condition, values["before"] = f"{time} IS NULL OR {time} < $before", before
        selected.insert(0, f"{time} AS {quote(EVENT_TIMESTAMP)}")
        # By time and then by all columns, so that equal rows are an equal input.
        order = "ORDER BY ALL" if table.query and not _has_an_order(con) else ""
        with interruptible():
            con.execute(
                f"COPY (SELECT *, row_number() OVER () - 1 AS {quote(ROW_NUMBER)} FROM "
                f"(SELECT {', '.join(selected)} FROM {quote('rows')} WHERE {condition} {order})) "
                f"TO $out ({SNAPSHOT_FORMAT})",
                {**values, "out": str(out)},
            )
    except duckdb.Error as error:
        raise DataError(f"{shown}: {first_line(error)}") from error
    finally:
        con.close()
    return open_snapshot(out, shown, before)


def open_snapshot(path: Path, shown: str, before: datetime | None = None) -> Snapshot:
    """A snapshot that was written. shown: what a message calls its rows.

    Raises DataError when there are no rows, or one has no time.
    """
    with Engine().connect() as con:
        written = con.read_parquet(glob.escape(str(path)))
        columns = dict(zip(written.columns, map(str, written.types), strict=True))
        # A sum of hashes does not depend on threads; the row number in each makes it depend on the order.
        ((count, timed, possible, first, last, digest),) = written.aggregate(
            f"count(*), count(event_timestamp), count(*) FILTER ({_POSSIBLE}), "
            "epoch_us(min(event_timestamp)), epoch_us(max(event_timestamp)), "
            f"sum(hash({quote_all(columns)})::HUGEINT)"
        ).fetchall()
    if count == 0:
        raise DataError(f"{shown}: has no rows" + (f" before {before}" if before is not None else ""))
    if timed < count:
        raise DataError(f"{shown}: {count - timed} of {count} rows have no event_timestamp")
    if possible < count:
        raise DataError(
            f"{shown}: event_timestamp of {count - possible} of {count} rows is not between the years 1 and 9999; "
            "seconds taken for milliseconds, or milliseconds for microseconds, look like this"
        )
    return Snapshot(path, count, _utc(first), _utc(last), columns, str(digest))


def _select_list(
    columns: Sequence[str], present: Mapping[str, str], defaults: Mapping[str, Any], shown: str
) -> tuple[list[str], dict[str, Any]]:
    selected, values = [], {}
    # The time is written by itself: as the rows have it, in UTC, or as `as_of` says.
    for number, column in enumerate(name for name in dict.fromkeys(columns) if name != EVENT_TIMESTAMP):
        if column in present:
            selected.append(_exact(column, present[column]))
        elif column in defaults:
            values[f"default_{number}"] = defaults[column]
            selected.append(f"$default_{number} AS {quote(column)}")
        else:
            raise DataError(f"{shown}: no column {column!r}; {did_you_mean(column, present)}")
    return selected, values


def _has_an_order(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the rows of a query come in the order of what it reads, each time that it runs."""
    return all(name in _KEEP_ORDER for name, _ in operators(con, f"SELECT * FROM {quote('rows')}"))


def _exact(column: str, kind: str) -> str:
    """A column; of 128 bits, which parquet does not have and DuckDB would round, as of 64: larger ones are an error."""
    narrower = _NARROWER.get(kind)
    return quote(column) if narrower is None else f"CAST({quote(column)} AS {narrower}) AS {quote(column)}"


def _time_of_rows(present: Mapping[str, str], shown: str) -> str:
    kind = present.get(EVENT_TIMESTAMP)
    if kind is None:
        raise DataError(f"{shown}: no column {EVENT_TIMESTAMP!r}; {did_you_mean(EVENT_TIMESTAMP, present)}")
    if not (kind.startswith("TIMESTAMP") or kind in ("DATE", "VARCHAR")):
        raise DataError(f"{shown}: {EVENT_TIMESTAMP} is {kind}; it must be a timestamp")
    return instant(quote(EVENT_TIMESTAMP))


def _utc(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
