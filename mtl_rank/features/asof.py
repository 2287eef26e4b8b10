"""The point-in-time join, written as SQL for DuckDB.

For every entity row the newest feature row with `timestamp <= t` and `timestamp + ttl >= t` is taken, both bounds
inclusive. Rows of equal timestamp are decided by the created column. The work is a sort of each side, so it grows
with the number of entity rows plus the number of feature rows, never with their product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mtl_rank.features.sql import quote

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class View:
    """One feature view in the join.

    table: the name the source is registered under.
    keys: (entity column, source column) pairs; empty for a view without entities.
    timestamp, created: source columns; created decides between rows of equal timestamp.
    ttl: how long a value stays valid; None or zero = for ever.
    features: (source column, output column) pairs.
    """

    table: str
    keys: tuple[tuple[str, str], ...]
    timestamp: str
    created: str | None
    ttl: timedelta | None
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rows:
    """The entity rows: the name they are registered under, their columns in order and which of them is the time."""

    table: str
    columns: tuple[str, ...]
    timestamp: str


def instant(column: str) -> str:
    """SQL of a column as a point in time in UTC, in microseconds. A time without a zone means UTC."""
    return f"CAST({column} AS TIMESTAMPTZ)"


def point_in_time_join(rows: Rows, views: Sequence[View], *, filter_by_created: bool = False) -> str:
    """SQL giving every entity row, in its order, with the features known at its time.

    Columns: those of the entity rows, then the output columns of the views in order.
    filter_by_created: a feature row counts only when also `created <= t`.
    """
    row = quote(_unused("__row", rows.columns))
    select = [f"e.{quote(column)}" for column in rows.columns]
    joins = []
    for index, view in enumerate(views):
        side = quote(f"view {index}")
        on = [f"e.{quote(key)} = {side}.{quote(f'key {i}')}" for i, (key, _) in enumerate(view.keys)]
        on.append(f"e.{quote(rows.timestamp)} >= {side}.visible")
        joins.append(f"ASOF LEFT JOIN ({_history(view, filter_by_created)}) AS {side} ON {' AND '.join(on)}")
        for i, (_, output) in enumerate(view.features):
            value = f"{side}.{quote(f'feature {i}')}"
            if view.ttl:
                age = f"epoch_us(e.{quote(rows.timestamp)}) - epoch_us({side}.ts)"
                value = f"CASE WHEN {age} <= {view.ttl // _MICROSECOND} THEN {value} END"
            select.append(f"{value} AS {quote(output)}")
    time = quote(rows.timestamp)
    numbered = f"SELECT * REPLACE ({instant(time)} AS {time}), row_number() OVER () AS {row} FROM {quote(rows.table)}"
    return f"SELECT {', '.join(select)} FROM ({numbered}) AS e {' '.join(joins)} ORDER BY e.{row}"


def latest(view: View, columns: Sequence[tuple[str, str]], where: str) -> str:
    """SQL of the newest row of every key among the rows of the source that satisfy `where`.

    columns: (source column or SQL, output column) pairs.
    """
    select = ", ".join(f"{sql} AS {quote(output)}" for sql, output in columns)
    partition = ", ".join(quote(source) for _, source in view.keys)
    over = f"{f'PARTITION BY {partition} ' if partition else ''}ORDER BY {_newest_first(view)}"
    return f"SELECT {select} FROM {quote(view.table)} WHERE {where} QUALIFY row_number() OVER ({over}) = 1"


def _newest_first(view: View) -> str:
    order = [f"{instant(quote(view.timestamp))} DESC NULLS LAST"]
    if view.created:
        order.append(f"{instant(quote(view.created))} DESC NULLS LAST")
    return ", ".join(order)


def _history(view: View, filter_by_created: bool) -> str:
    """SQL of a source ready for the join: `visible`, `ts`, one row per key and visible time."""
    keys = [f"{quote(source)} AS {quote(f'key {i}')}" for i, (_, source) in enumerate(view.keys)]
    features = [f"{quote(source)} AS {quote(f'feature {i}')}" for i, (source, _) in enumerate(view.features)]
    ts = instant(quote(view.timestamp))
    partition = ", ".join([quote(source) for _, source in view.keys] + [ts])
    select = ", ".join([*keys, *features, f"{ts} AS ts", f"{ts} AS visible"])
    if not (filter_by_created and view.created):
        order = f"{instant(quote(view.created))} DESC NULLS LAST" if view.created else ts
        return (
            f"SELECT {select} FROM {quote(view.table)} "
            f"QUALIFY row_number() OVER (PARTITION BY {partition} ORDER BY {order}) = 1"
        )
    return _visible_history(view)


def _visible_history(view: View) -> str:
    """SQL of a source when a row is only known from `greatest(ts, created)` on.

    The answer at time t is the greatest (ts, created) among the rows visible by t: a running maximum over the rows
    in the order in which they became visible. Only the rows where the maximum changes matter, and one of each time.
    """
    keys = [f"{quote(source)} AS {quote(f'key {i}')}" for i, (_, source) in enumerate(view.keys)]
    features = [f"{quote(source)} AS {quote(f'feature {i}')}" for i, (source, _) in enumerate(view.features)]
    ts, created = instant(quote(view.timestamp)), instant(quote(view.created or ""))
    partition = ", ".join(quote(f"key {i}") for i in range(len(view.keys)))
    by_key = f"PARTITION BY {partition}" if partition else ""
    known = (
        f"SELECT {', '.join([*keys, *features])}, {ts} AS ts, {created} AS created, "
        f"greatest({ts}, {created}) AS visible FROM {quote(view.table)} "
        f"WHERE {quote(view.timestamp)} IS NOT NULL AND {quote(view.created or '')} IS NOT NULL"
    )
    running = (
        f"SELECT *, max(struct_pack(ts := ts, created := created)) OVER "
        f"({by_key} ORDER BY visible, ts, created ROWS UNBOUNDED PRECEDING) AS best FROM ({known})"
    )
    last = f"{by_key}{', ' if partition else 'PARTITION BY '}visible ORDER BY ts DESC, created DESC"
    return (
        f"SELECT * FROM ({running}) WHERE best = struct_pack(ts := ts, created := created) "
        f"QUALIFY row_number() OVER ({last}) = 1"
    )


def _unused(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name
