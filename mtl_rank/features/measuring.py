"""How large a source is and what times it spans, before it is joined."""

from collections.abc import Sequence
from typing import Any

import duckdb

from mtl_rank.features.asof import View
from mtl_rank.features.kinds import family
from mtl_rank.features.ranks import Rank, Span, rank_for
from mtl_rank.features.relations import readable
from mtl_rank.features.sql import instant, quote


def measure(con: duckdb.DuckDBPyConnection, view: View) -> tuple[int, Rank]:
    """How many rows a source has, and the rank that holds the range of its times."""
    columns = [f"s.{quote(column)}" for column in (view.timestamp, view.created) if column]
    bare = [f"epoch_us({instant(f'{end}({column})')})" for column in columns for end in ("min", "max")]
    exact = [f"{end}(epoch_us({instant(column)}))" for column in columns for end in ("min", "max")]
    with readable(view.source.label):
        # The ends of a bare column stand in the statistics of a parquet file. They are none when the column is
        # text, which sorts otherwise, or when an end is infinite.
        if all(
            family(view.source.columns[column]) == "time"
            for column in (view.timestamp, view.created)
            if column
        ):
            count, *ends = _one_row(con, view, bare)
            if None not in ends:
                return count, _rank(view, ends)
        count, *ends = _one_row(con, view, exact)
        return count, _rank(view, ends)


def _one_row(con: duckdb.DuckDBPyConnection, view: View, values: list[str]) -> list[Any]:
    sql = f"SELECT count(*), {', '.join(values)} FROM {view.source.sql} AS s"
    (row,) = con.sql(sql, params=dict(view.source.values) or None).fetchall()
    return list(row)


def _rank(view: View, ends: Sequence[int | None]) -> Rank:
    first, last, *created = (end or 0 for end in ends)
    return rank_for(Span(first, last), Span(*created) if created else None, view.source.position_bits)
