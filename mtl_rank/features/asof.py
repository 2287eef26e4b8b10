"""The point-in-time join, written as SQL for DuckDB.

For every entity row the newest feature row with `timestamp <= t` and `timestamp + ttl >= t` is taken, both
bounds inclusive; the created column decides between rows of equal timestamp, and the position in the source
between rows equal in both. The join works on narrow columns alone:

1. `keys <n>`: a small integer for every key of the entity rows, so that neither strings nor pairs are sorted;
2. `times`: position, time and key integers of every entity row;
3. `history <n>`: key integer and rank of the feature rows of a view, for the keys that are asked for;
4. `matched`: one ASOF join per view gives the position of the feature row of each entity row.

`fetch` then reads the wide columns at the matched positions. The cost is that of sorting each side once: it grows
with entity rows plus feature rows, never with their product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mtl_rank.features.ranks import Rank
from mtl_rank.features.relations import Relation
from mtl_rank.features.sql import instant as instant
from mtl_rank.features.sql import quote, quote_all

_MICROSECOND = timedelta(microseconds=1)
_ALWAYS = -(2**63)
_MAKE_TIME = {"TIMESTAMP": "make_timestamp", "TIMESTAMP WITH TIME ZONE": "make_timestamptz"}


@dataclass(frozen=True)
class View:
    """One feature view in the join.

    keys: (entity column, source column) pairs; empty for a view without entities.
    timestamp, created: source columns.
    ttl: how long a value stays valid; None or zero = for ever.
    features: (source column, output column) pairs.
    """

    source: Relation
    keys: tuple[tuple[str, str], ...]
    timestamp: str
    created: str | None
    ttl: timedelta | None
    features: tuple[tuple[str, str], ...]

    @property
    def entity_keys(self) -> tuple[str, ...]:
        """The columns of the entity rows that this view is joined on."""
        return tuple(key for key, _ in self.keys)

    @property
    def position(self) -> str:
        """SQL of the position of a row in the source."""
        if self.source.position is None:
            raise ValueError(f"{self.source.label}: copy its rows first, they have no position")
        return self.source.position

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the source that the join reads."""
        times = (self.timestamp, self.created) if self.created else (self.timestamp,)
        names = [*(source for _, source in self.keys), *times, *(source for source, _ in self.features)]
        return tuple(dict.fromkeys(names))

    @property
    def ttl_microseconds(self) -> int | None:
        """The time to live in the resolution of every timestamp here."""
        return self.ttl // _MICROSECOND if self.ttl else None


@dataclass(frozen=True)
class Rows:
    """The entity rows: their table, its columns in order, and which of them is the time."""

    table: str
    columns: tuple[str, ...]
    timestamp: str


@dataclass(frozen=True)
class Window:
    """Times after `after` and up to `upto`, in microseconds; None = unbounded."""

    after: int | None = None
    upto: int | None = None

    def holds(self, microseconds: str) -> str:
        """SQL that is true inside the window."""
        bounds = []
        if self.after is not None:
            bounds.append(f"{microseconds} > {self.after}")
        if self.upto is not None:
            bounds.append(f"{microseconds} <= {self.upto}")
        return " AND ".join(bounds) or "TRUE"


def number_keys(rows: Rows, keys: Sequence[str], number: int) -> str:
    """Creates `keys <number>`: an integer `id` for every distinct key of the entity rows."""
    known = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
    distinct = f"SELECT DISTINCT {quote_all(keys)} FROM {quote(rows.table)} WHERE {known}"
    return (
        f"CREATE TABLE {quote(f'keys {number}')} AS "
        f"SELECT *, CAST(row_number() OVER () AS INTEGER) AS id FROM ({distinct})"
    )


def number_rows(rows: Rows, key_sets: Sequence[tuple[str, ...]]) -> str:
    """Creates `times`: position r (from 0), time t in microseconds and `id <n>` of every entity row."""
    columns = dict.fromkeys(key for keys in key_sets for key in keys)
    time = f"epoch_us({instant(quote(rows.timestamp))}) AS t"
    numbered = ", ".join(["row_number() OVER () - 1 AS r", time, *map(quote, columns)])
    select, joins = ["e.r", "e.t"], []
    for number, keys in enumerate(key_sets):
        table, identity = quote(f"keys {number}"), "CAST(0 AS INTEGER)"
        if keys:
            identity = f"{table}.id"
            on = " AND ".join(f"e.{quote(key)} = {table}.{quote(key)}" for key in keys)
            joins.append(f"LEFT JOIN {table} ON {on}")
        select.append(f"{identity} AS {quote(f'id {number}')}")
    source = f"(SELECT {numbered} FROM {quote(rows.table)}) AS e {' '.join(joins)}"
    return f"CREATE TABLE times AS SELECT {', '.join(select)} FROM {source}"


def history(
    view: View,
    rank: Rank,
    key_set: int,
    window: Window,
    *,
    from_created: bool = False,
    carried: str | None = None,
) -> str:
    """SQL of the feature rows that became known in a window: `id`, `rank`, and `known` when from_created.

    from_created: a row is known from the later of timestamp and created on, not from timestamp on.
    carried: a table of `id` and `rank`, the newest row of each key from before the window.
    """
    ts = f"epoch_us({instant(f's.{quote(view.timestamp)}')})"
    created = f"epoch_us({instant(f's.{quote(view.created)}')})" if view.created else None
    from_created = from_created and created is not None
    known = f"greatest({ts}, {created})" if from_created else ts
    joins, identity = "", "CAST(0 AS INTEGER)"
    if view.keys:
        identity = "k.id"
        on = " AND ".join(f"s.{quote(source)} = k.{quote(entity)}" for entity, source in view.keys)
        joins = f" JOIN {quote(f'keys {key_set}')} AS k ON {on}"
    where = [window.holds(known), _pruned(view, window, from_created), f"{ts} IS NOT NULL"]
    if from_created:
        where.append(f"{created} IS NOT NULL")
    select = f"SELECT {identity} AS id, {rank.pack(ts, created, view.position)} AS rank"
    if from_created:
        select += f", {known} AS known"
    sql = f"{select} FROM {view.source.sql} AS s{joins} WHERE {' AND '.join(where)}"
    if carried:
        sql += f" UNION ALL SELECT id, rank{f', {_ALWAYS}' if from_created else ''} FROM {quote(carried)}"
    if from_created:
        # The answer at time t is the greatest rank among the rows known by t: a running maximum. The frame takes
        # in rows that became known at the same time, so that any of them carries the answer.
        sql = f"SELECT id, known, max(rank) OVER (PARTITION BY id ORDER BY known) AS rank FROM ({sql})"
    return sql


def _pruned(view: View, window: Window, from_created: bool) -> str:
    """SQL, true inside the window, on the bare timestamp: by it DuckDB skips row groups of parquet files."""
    make = _MAKE_TIME.get(view.source.columns[view.timestamp])
    column = f"s.{quote(view.timestamp)}"
    bounds = []
    if make and window.upto is not None:
        bounds.append(f"{column} <= {make}({window.upto})")
    if make and window.after is not None and not from_created:
        bounds.append(f"{column} > {make}({window.after})")
    return " AND ".join(bounds) or "TRUE"


def newest(table: str) -> str:
    """SQL of the newest row of each key of a history: what the next window starts from."""
    return f"SELECT id, max(rank) AS rank FROM {quote(table)} GROUP BY id"


def match(
    views: Sequence[View],
    ranks: Sequence[Rank],
    key_sets: Sequence[int],
    histories: Sequence[str],
    window: Window,
    *,
    from_created: bool = False,
) -> str:
    """SQL of r and `row <n>`, the position in the source of each view's feature row, for the rows in a window.

    histories: SQL of one relation per view, as `history` gives it.
    """
    select, joins = ["e.r"], []
    for number, (view, rank, key_set, relation) in enumerate(
        zip(views, ranks, key_sets, histories, strict=True)
    ):
        side = quote(f"h{number}")
        value = f"{side}.rank"
        known = f"e.t >= {side}.known" if from_created and view.created else f"{rank.beyond('e.t')} > {value}"
        position = rank.position(value)
        if view.ttl_microseconds:
            age = f"e.t - {rank.timestamp(value)}"
            position = f"CASE WHEN {age} <= {view.ttl_microseconds} THEN {position} END"
        select.append(f"{position} AS {quote(f'row {number}')}")
        joins.append(
            f"ASOF LEFT JOIN {relation} AS {side} ON e.{quote(f'id {key_set}')} = {side}.id AND {known}"
        )
    times = f"(SELECT * FROM times WHERE {window.holds('t')})" if window != Window() else "times"
    return f"SELECT {', '.join(select)} FROM {times} AS e {' '.join(joins)}"


def fetch(
    rows: Rows, views: Sequence[View], table: str, offset: int, count: int, sizes: Sequence[int] | None = None
) -> str:
    """SQL of `count` entity rows from `offset` on, held in `table`, with their features, in order.

    sizes: rows of each source, if known. A source with no more rows than are asked for is read whole: most of it
    is wanted then.
    """
    select = [f"e.{quote(column)}" for column in rows.columns]
    joins = []
    for number, view in enumerate(views):
        side, row = quote(f"f{number}"), quote(f"row {number}")
        names = [
            f"{view.source.value(source)} AS {quote(f'v{i}')}" for i, (source, _) in enumerate(view.features)
        ]
        select += [
            f"{side}.{quote(f'v{i}')} AS {quote(output)}" for i, (_, output) in enumerate(view.features)
        ]
        position = view.position
        wanted = f"SELECT {position} AS pos, {', '.join(names)} FROM {view.source.sql} AS s"
        if sizes is None or sizes[number] > count:
            wanted += f" WHERE {position} IN (SELECT {row} FROM m)"
        joins.append(f"LEFT JOIN ({wanted}) AS {side} ON m.{row} = {side}.pos")
    part = f"SELECT * FROM matched WHERE r >= {offset} AND r < {offset + count}"
    numbered = (
        f"SELECT *, row_number() OVER () - 1 + {offset} AS {quote(_position(rows))} FROM {quote(table)}"
    )
    order = f"e.{quote(_position(rows))}"
    return (
        f"WITH m AS MATERIALIZED ({part}) SELECT {', '.join(select)} FROM ({numbered}) AS e "
        f"LEFT JOIN m ON m.r = {order} {' '.join(joins)} ORDER BY {order}"
    )


def _position(rows: Rows) -> str:
    """A name for the position of a row that no column of the entity rows has."""
    name = "r"
    while name in rows.columns:
        name += "_"
    return name
