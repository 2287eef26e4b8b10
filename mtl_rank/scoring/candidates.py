"""The rows to score, checked and numbered: no key is missing, and duplicates are as the caller wants them."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from mtl_rank.errors import ConfigError, DataError, did_you_mean
from mtl_rank.features.snapshot import (
    EVENT_TIMESTAMP,
    ROW_NUMBER,
    SNAPSHOT_FORMAT,
    Snapshot,
    open_snapshot,
    snapshot_rows,
)
from mtl_rank.features.sources import first_line
from mtl_rank.features.sql import Engine, quote, quote_all
from mtl_rank.scoring.ledger import Chunk

_VIEW = "candidates"
_NUMBER = quote(ROW_NUMBER)
_CHOICES = {"duplicates": ("keep", "drop", "error"), "null_keys": ("error", "drop", "keep")}


@dataclass(frozen=True)
class CandidateRules:
    """What becomes of rows that are not as they should be.

    duplicates: rows with the keys and the time of an earlier one: `keep` scores each, `drop` leaves the first,
        `error` raises.
    null_keys: rows without one of the join keys: `error` raises, `drop` leaves them out, `keep` scores them with
        the features of that key missing.

    Raises:
        ConfigError: a rule is none of its choices.
    """

    duplicates: str = "keep"
    null_keys: str = "error"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            given = getattr(self, name)
            if given not in choices:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} {given}: {did_you_mean(str(given), choices)}")


@dataclass(frozen=True)
class RowList:
    """A list of rows as a snapshot. dropped: how many were left out."""

    snapshot: Snapshot
    dropped: int


def snapshot_list(
    rows: Any,
    project: Path,
    columns: Sequence[str],
    out: Path,
    rules: CandidateRules,
    keys: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
    as_of: datetime | None = None,
    sort: Sequence[str] = (),
) -> RowList:
    """Copy `columns` of rows to the parquet file `out`, checked.

    rows, columns, defaults, as_of: as `snapshot_rows` takes them. keys: the columns that no row may lack.
    sort: put rows with equal values of these columns next to each other, in their order; () = leave all as it is.

    Raises:
        DataError: a column is missing, there are no rows, or a row breaks a rule that is `error`.
    """
    snapshot = snapshot_rows(rows, project, columns, out, defaults=defaults, as_of=as_of)
    shown = rows if isinstance(rows, str) else "the table"
    with copying(shown), Engine().connect() as con:
        con.read_parquet(glob.escape(str(out))).create_view(_VIEW)
        condition = _kept(con, snapshot, keys, rules, shown)
        if condition is None and not sort:
            return RowList(snapshot, 0)
        names = quote_all(name for name in snapshot.columns if name != ROW_NUMBER)
        order = ", ".join([*map(quote, sort), _NUMBER])
        checked = out.with_name(f"checked-{out.name}")
        con.execute(
            f"COPY (SELECT {names}, row_number() OVER (ORDER BY {order}) - 1 AS {_NUMBER} "
            f"FROM (SELECT * FROM {_VIEW} WHERE {condition or 'TRUE'}) ORDER BY {_NUMBER}) "
            f"TO $out ({SNAPSHOT_FORMAT})",
            {"out": str(checked)},
        )
    out.unlink()
    left = open_snapshot(checked, shown)
    return RowList(left, snapshot.rows - left.rows)


@contextmanager
def copying(shown: str) -> Iterator[None]:
    """Turn what DuckDB says of rows on their way to a temporary file, such as a full disk, into a DataError."""
    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise DataError(f"{shown}: {first_line(error)}") from error


def even_chunks(rows: int, size: int) -> list[Chunk]:
    """Rows in chunks of `size`, the last one shorter."""
    return [
        Chunk(number, first, min(size, rows - first)) for number, first in enumerate(range(0, rows, size))
    ]


def chunks_of_keys(snapshot: Snapshot, per: Sequence[str], size: int) -> list[Chunk]:
    """Chunks of at least `size` rows that end where a key ends, the last one shorter.

    snapshot: sorted by the columns `per`.
    """
    with Engine().connect() as con:
        con.read_parquet(glob.escape(str(snapshot.path))).create_view(_VIEW)
        ends = con.sql(
            f"SELECT max({_NUMBER}) + 1 AS row_end FROM {_VIEW} GROUP BY {quote_all(per)} ORDER BY 1"
        ).fetchnumpy()["row_end"]
    chunks: list[Chunk] = []
    first = 0
    while first < snapshot.rows:
        end = int(ends[min(np.searchsorted(ends, first + size), len(ends) - 1)])
        chunks.append(Chunk(len(chunks), first, end - first))
        first = end
    return chunks


def _kept(
    con: duckdb.DuckDBPyConnection, snapshot: Snapshot, keys: Sequence[str], rules: CandidateRules, shown: str
) -> str | None:
    """What stands after WHERE to leave out what the rules leave out; None = nothing."""
    without = _count_nulls(con, keys)
    if without and rules.null_keys == "error":
        key, count = next(iter(without.items()))
        raise DataError(
            f"{shown}: {count:,} of {snapshot.rows:,} rows have no {key!r}; "
            "give them one, or leave them out with --null-keys drop"
        )
    identity = [*keys, EVENT_TIMESTAMP]
    if rules.duplicates == "error":
        _refuse_duplicates(con, identity, shown)
    condition = None
    if rules.null_keys == "drop" and without:
        condition = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
    if rules.duplicates == "drop":
        first = f"row_number() OVER (PARTITION BY {quote_all(identity)} ORDER BY {_NUMBER}) = 1"
        condition = f"{condition or 'TRUE'} QUALIFY {first}"
    return condition


def _count_nulls(con: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, int]:
    """Rows without each key; keys that every row has are left out."""
    if not keys:
        return {}
    counts = ", ".join(f"count(*) - count({quote(key)})" for key in keys)
    (found,) = con.sql(f"SELECT {counts} FROM {_VIEW}").fetchall()
    return {key: count for key, count in zip(keys, found, strict=True) if count}


def _refuse_duplicates(con: duckdb.DuckDBPyConnection, identity: Sequence[str], shown: str) -> None:
    found = con.sql(
        f"SELECT {quote_all(identity)}, count(*) AS n, sum(n - 1) OVER ()::BIGINT FROM {_VIEW} "
        f"GROUP BY {quote_all(identity)} HAVING n > 1 ORDER BY min({_NUMBER}) LIMIT 1"
    ).fetchall()
    if found:
        *values, times, extra = found[0]
        named = ", ".join(f"{name} {value}" for name, value in zip(identity, values, strict=True))
        raise DataError(
            f"{shown}: {extra:,} rows are duplicates; {named} is there {times} times.\n"
            "--duplicates drop keeps the first of each"
        )
