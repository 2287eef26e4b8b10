"""Runs the point-in-time join: the narrow join first, then the wide columns, part by part, in order."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from mtl_rank.features import asof
from mtl_rank.features.asof import Rows, View, Window
from mtl_rank.features.limits import Limits, memory_of
from mtl_rank.features.measuring import measure
from mtl_rank.features.ranks import Rank, StructRank
from mtl_rank.features.sql import Engine, instant, quote

PART = "part"

_AGES = 2**60
"""Microseconds: longer than any history, short enough to subtract."""


@dataclass(frozen=True)
class Inputs:
    """What a point-in-time join reads, registered on one connection. Every read gives the same rows in one order."""

    rows: Rows
    views: tuple[View, ...]

    @property
    def key_sets(self) -> list[tuple[str, ...]]:
        """The different sets of entity columns that views are joined on."""
        return list(dict.fromkeys(view.entity_keys for view in self.views))

    @property
    def key_set_of(self) -> list[int]:
        """For each view the number of its key set."""
        return [self.key_sets.index(view.entity_keys) for view in self.views]

    @property
    def values(self) -> dict[str, Any]:
        """What is bound to the parameters of all sources."""
        return {name: value for view in self.views for name, value in view.source.values.items()}


class Register(Protocol):
    """Puts the inputs on a fresh connection; head: their columns alone, without rows."""

    def __call__(self, con: duckdb.DuckDBPyConnection, *, head: bool = False) -> Inputs: ...


@dataclass(frozen=True)
class PointInTimeJoin:
    """Entity rows with the features known at their times, computed anew at every run.

    from_created: a feature row is known from the later of its timestamp and its created time on.
    """

    engine: Engine
    register: Register
    limits: Limits
    from_created: bool = False

    def match_times(self) -> "PointInTimeJoin":
        """The same join with one column per view instead of its features: the time of the matched row, null = none.

        The column is called as messages call the view.
        """

        def timed(con: duckdb.DuckDBPyConnection, *, head: bool = False) -> Inputs:
            inputs = self.register(con, head=head)
            views = (replace(view, features=((view.timestamp, view.source.label),)) for view in inputs.views)
            return Inputs(inputs.rows, tuple(views))

        return PointInTimeJoin(self.engine, timed, self.limits, self.from_created)

    def schema(self) -> pa.Schema:
        """The columns of the result. Reads no rows."""
        return self.description[1]

    @cached_property
    def description(self) -> tuple[Rows, pa.Schema]:
        """The entity rows and the columns of the result. Reads no rows; raises when inputs do not fit together."""
        with closing(self.engine.connect()) as con:
            inputs = self.register(con, head=True)
            con.execute(_create_matched(inputs))
            con.register(PART, con.sql(f"{_ordered_rows(inputs.rows)} LIMIT 0").to_arrow_table())
            return inputs.rows, _fetch(con, inputs, 0, 0).to_arrow_table().schema

    def span(self) -> tuple[datetime | None, datetime | None]:
        """The first and the last time of the entity rows."""
        with closing(self.engine.connect()) as con:
            rows = self.register(con).rows
            time = instant(quote(rows.timestamp))
            span = con.sql(f"SELECT min({time}), max({time}) FROM {quote(rows.table)}").fetchall()[0]
            return span[0], span[1]

    def sql(self) -> str:
        """The join as a script over the registered inputs, for reading."""
        with closing(self.engine.connect()) as con:
            inputs = self.register(con, head=True)
        ranks: list[Rank] = [StructRank() for _ in inputs.views]
        join = _Join(inputs, ranks, self.from_created)
        histories = [f"({sql})" for sql in join.histories([Window()] * len(ranks))]
        steps = [*_number(inputs), _create_matched(inputs), join.match(Window(), histories)]
        return ";\n".join([*steps, asof.fetch(inputs.rows, inputs.views, inputs.rows.table, 0, 2**62)])

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The result in the order of the entity rows, at most `rows` at a time.

        At most as many entity rows as the limits say have their features in memory together.
        """
        with closing(self.engine.connect()) as con, closing(self.engine.cursor(con)) as beside:
            inputs = self.register(con)
            memory = memory_of(con)
            for statement in _number(inputs):
                con.execute(statement)
            sizes = _match(con, inputs, self.limits.joined(memory), self.from_created)
            kinds = [view.source.columns[source] for view in inputs.views for source, _ in view.features]
            entity_rows = con.sql(_ordered_rows(inputs.rows)).to_arrow_reader()
            offset = 0
            for part in _parts(entity_rows, self.limits.fetched(memory, kinds)):
                beside.register(PART, part)
                for batch in _fetch(beside, inputs, offset, part.num_rows, sizes).to_arrow_reader(rows):
                    for view in inputs.views:
                        view.source.check_unchanged()
                    yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
                offset += part.num_rows


@dataclass(frozen=True)
class _Join:
    """The statements of the narrow join, for one choice of ranks."""

    inputs: Inputs
    ranks: Sequence[Rank]
    from_created: bool

    def histories(self, windows: Sequence[Window], *, carried: bool = False) -> list[str]:
        """SQL of the feature rows of each view in its window."""
        parts = zip(self.inputs.views, self.ranks, self.inputs.key_set_of, windows, strict=True)
        return [
            asof.history(
                view,
                rank,
                key_set,
                window,
                from_created=self.from_created,
                carried=f"carried {number}" if carried else None,
            )
            for number, (view, rank, key_set, window) in enumerate(parts)
        ]

    def match(self, window: Window, relations: Sequence[str]) -> str:
        """Adds the entity rows of a window to `matched`. relations: the history of each view."""
        matched = asof.match(
            self.inputs.views,
            self.ranks,
            self.inputs.key_set_of,
            relations,
            window,
            from_created=self.from_created,
        )
        return f"INSERT INTO matched {matched}"


def _match(con: duckdb.DuckDBPyConnection, inputs: Inputs, join_rows: int, from_created: bool) -> list[int]:
    """Creates `matched`: for every entity row the positions of its feature rows. Returns the rows of each source.

    Inputs of more than join_rows are joined one window of time after another. A feature row is read in one window
    alone: what later windows may still need, the newest row of each key, is carried over.
    """
    measured = [measure(con, view) for view in inputs.views]
    sizes, ranks = [size for size, _ in measured], [rank for _, rank in measured]
    join = _Join(inputs, ranks, from_created)
    con.execute(_create_matched(inputs))
    ((count, first, last),) = con.sql("SELECT count(*), min(t), max(t) FROM times").fetchall()
    if last is None:
        return sizes
    # What is older than every time to live can reach no entity row.
    oldest = [_oldest(first, view.ttl_microseconds) for view in inputs.views]
    parts = -(-(count + sum(sizes)) // join_rows)
    windows = _windows(con, parts, last)
    if len(windows) == 1:
        histories = join.histories([Window(after, last) for after in oldest])
        con.execute(join.match(Window(), [f"({sql})" for sql in histories]), inputs.values)
        return sizes
    for index, window in enumerate(windows):
        reach = [Window(after if index == 0 else window.after, window.upto) for after in oldest]
        for number, sql in enumerate(join.histories(reach, carried=index > 0)):
            values = dict(inputs.views[number].source.values)
            con.execute(f"CREATE OR REPLACE TABLE {quote(f'history {number}')} AS {sql}", values)
        con.execute(join.match(window, [quote(f"history {number}") for number in range(len(ranks))]))
        for number in range(len(ranks)):
            newest = asof.newest(f"history {number}")
            con.execute(f"CREATE OR REPLACE TABLE {quote(f'carried {number}')} AS {newest}")
    return sizes


def _oldest(first: int, ttl: int | None) -> int | None:
    """The last microsecond that is too old for every entity row; None when there is none."""
    return first - ttl - 1 if ttl and ttl < _AGES else None


def _windows(con: duckdb.DuckDBPyConnection, parts: int, last: int) -> list[Window]:
    """Windows of time with about equally many entity rows each; the last ends at the last entity row."""
    if parts <= 1:
        return [Window()]
    shares = ", ".join(str(part / parts) for part in range(1, parts))
    ((cuts,),) = con.sql(f"SELECT approx_quantile(t, [{shares}]) FROM times").fetchall()
    ends = sorted({int(cut) for cut in cuts if cut < last} | {last})
    return [Window(after, upto) for after, upto in zip([None, *ends[:-1]], ends, strict=True)]


def _number(inputs: Inputs) -> list[str]:
    """Statements that number the keys and the entity rows."""
    keys = [
        asof.number_keys(inputs.rows, keys, number) for number, keys in enumerate(inputs.key_sets) if keys
    ]
    return [*keys, asof.number_rows(inputs.rows, inputs.key_sets)]


def _create_matched(inputs: Inputs) -> str:
    positions = "".join(f", {quote(f'row {number}')} BIGINT" for number in range(len(inputs.views)))
    return f"CREATE TABLE matched (r BIGINT{positions})"


def _ordered_rows(rows: Rows) -> str:
    time = quote(rows.timestamp)
    return f"SELECT * REPLACE ({instant(time)} AS {time}) FROM {quote(rows.table)}"


def _parts(batches: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Batches put together to tables of about `rows` rows."""
    part: list[pa.RecordBatch] = []
    for batch in batches:
        if part and sum(map(len, part)) + len(batch) > rows:
            yield pa.Table.from_batches(part)
            part = []
        part.append(batch)
    if part:
        yield pa.Table.from_batches(part)


def _fetch(
    con: duckdb.DuckDBPyConnection, inputs: Inputs, offset: int, count: int, sizes: list[int] | None = None
) -> duckdb.DuckDBPyRelation:
    sql = asof.fetch(inputs.rows, inputs.views, PART, offset, count, sizes)
    return con.sql(sql, params=inputs.values or None)
