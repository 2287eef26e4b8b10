"""From what Feast asks for to what the point-in-time join reads, with every check that needs no long work."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView

from mtl_rank.errors import DataError, did_you_mean
from mtl_rank.features.asof import Rows, View
from mtl_rank.features.entity_rows import (
    EVENT_TIMESTAMP,
    LABEL,
    check_exact,
    check_times,
    event_timestamp,
    read_rows,
)
from mtl_rank.features.kinds import check_joinable, check_time
from mtl_rank.features.point_in_time import Inputs
from mtl_rank.features.relations import Relation, copy_rows, readable
from mtl_rank.features.sources import read_source
from mtl_rank.features.sql import instant, quote

_ROWS = "rows"


@dataclass(frozen=True)
class Period:
    """A span of time, both ends included."""

    start: datetime
    end: datetime

    def span(self) -> tuple[datetime, datetime]:
        """Both ends."""
        return self.start, self.end


@dataclass(frozen=True)
class Request:
    """Features of views, for entity rows or for whatever the views hold in a period.

    base: the folder in which relative paths start, the feature repository.
    on_demand: the on-demand views in feature_refs, which are computed later from columns of the result.
    """

    views: Sequence[FeatureView]
    feature_refs: Sequence[str]
    rows: Any
    base: Path
    full_feature_names: bool
    on_demand: Sequence[OnDemandFeatureView] = ()

    def register(self, con: duckdb.DuckDBPyConnection, *, head: bool = False) -> Inputs:
        """Everything the join reads, on a connection. head: its columns alone, without rows.

        Raises DataError when rows and sources do not fit together.
        """
        self._check_refs()
        views = []
        for number, view in enumerate(self.views):
            source = read_source(con, f"source_{number}", view.batch_source, self.base, label_of(view))
            joined = self._view(view, source)
            if source.position is None:
                copy = copy_rows(con, f"copy {number}", source, joined.columns, head=head)
                joined = replace(joined, source=copy)
            views.append(joined)
        if isinstance(self.rows, Period):
            rows, kinds = _rows_in_period(con, self.rows, views, head)
        else:
            rows, kinds = _given_rows(con, self.rows, self.base, head)
        for view in views:
            for entity, source_column in view.keys:
                if entity not in kinds:
                    raise DataError(
                        f"{LABEL}: no column {entity!r}, a join key of {view.source.label}; "
                        f"{did_you_mean(entity, kinds)}"
                    )
                kind = view.source.columns[source_column]
                check_joinable(entity, kinds[entity], source_column, kind, view.source.label)
                if not head:
                    check_exact(con, rows.table, entity, (kinds[entity], kind), view.source.label)
        for on_demand in self.on_demand:
            for name in on_demand.get_request_data_schema():
                if name not in kinds:
                    raise DataError(
                        f"{LABEL}: no column {name!r}, which on-demand view {name_of(on_demand)!r} needs; "
                        f"{did_you_mean(name, kinds)}"
                    )
        _check_outputs(rows, views)
        return Inputs(rows, tuple(views))

    def _check_refs(self) -> None:
        known = {name_of(view) for view in [*self.views, *self.on_demand]}
        for ref in self.feature_refs:
            view, colon, _ = ref.partition(":")
            if not colon or view not in known:
                raise DataError(f"feature {ref!r}: no feature view {view!r}; {did_you_mean(view, known)}")

    def _view(self, view: FeatureView, source: Relation) -> View:
        batch_source = view.batch_source
        mapping = batch_source.field_mapping if batch_source else {}
        prefix = f"{view.projection.name_alias or view.name}__" if self.full_feature_names else ""
        wanted = f"{name_of(view)}:"
        features = dict.fromkeys(ref[len(wanted) :] for ref in self.feature_refs if ref.startswith(wanted))
        fields = [field.name for field in view.entity_columns if field.name != DUMMY_ENTITY_ID]
        timestamp, created = time_columns(
            source, batch_source.timestamp_field, batch_source.created_timestamp_column, mapping
        )
        return View(
            source=source,
            keys=tuple(
                (view.projection.join_key_map.get(key, key), column_of(source, key, mapping))
                for key in fields
            ),
            timestamp=timestamp,
            created=created,
            ttl=view.ttl,
            features=tuple((column_of(source, name, mapping), f"{prefix}{name}") for name in features),
        )


def name_of(view: FeatureView | OnDemandFeatureView) -> str:
    """The name of a view in feature references."""
    name: str = view.projection.name_to_use()
    return name


def label_of(view: FeatureView) -> str:
    """What a message calls a view."""
    return f"feature view {name_of(view)!r}"


def column_of(source: Relation, name: str, mapping: dict[str, str]) -> str:
    """The source's own name of a column that Feast calls `name`: field mappings rename columns on the way.

    Raises DataError when the source has no such column.
    """
    for old, new in mapping.items():
        if new == name and old in source.columns:
            return old
    if name in source.columns:
        return name
    raise DataError(
        f"{source.label}: its source has no column {name!r}; {did_you_mean(name, source.columns)}"
    )


def time_columns(
    source: Relation, timestamp: str, created: str | None, mapping: dict[str, str]
) -> tuple[str, str | None]:
    """The source's own names of its timestamp and created columns.

    Raises DataError when there is no timestamp column, or one of the two is no time.
    """
    if not timestamp:
        raise DataError(f"{source.label}: its source names no timestamp_field")
    columns = [column_of(source, name, mapping) for name in (timestamp, created) if name]
    for column in columns:
        check_time(column, source.columns[column], source.label)
    return columns[0], columns[1] if created else None


def _given_rows(
    con: duckdb.DuckDBPyConnection, given: Any, base: Path, head: bool
) -> tuple[Rows, dict[str, str]]:
    table = read_rows(con, _ROWS, given, base)
    timestamp = event_timestamp(table)
    name = table.name
    if table.query:
        # Run once: its rows may come in another order when it runs again.
        name = "rows copy"
        con.execute(f"CREATE TABLE {quote(name)} AS SELECT * FROM {quote(_ROWS)}{' LIMIT 0' if head else ''}")
    rows = Rows(name, tuple(table.columns), timestamp)
    if not head:
        check_times(con, name, timestamp, table.columns[timestamp])
    return rows, dict(table.columns)


def _rows_in_period(
    con: duckdb.DuckDBPyConnection, period: Period, views: Sequence[View], head: bool
) -> tuple[Rows, dict[str, str]]:
    """Every different (timestamp, keys) that the views hold in a period; keys of other views are null."""
    keys = list(dict.fromkeys(key for view in views for key in view.entity_keys))
    selects, values = [], {"start": period.start, "end": period.end}
    for view in views:
        own = dict(view.keys)
        time = instant(f"s.{quote(view.timestamp)}")
        columns = [f"{f's.{quote(own[key])}' if key in own else 'NULL'} AS {quote(key)}" for key in keys]
        select = ", ".join([f"{time} AS {quote(EVENT_TIMESTAMP)}", *columns])
        selects.append(f"SELECT {select} FROM {view.source.sql} AS s WHERE {time} BETWEEN $start AND $end")
        values |= view.source.values
    every = " UNION ".join(selects)
    limit = " LIMIT 0" if head else ""
    with readable(LABEL):
        con.execute(
            f"CREATE TABLE {quote(_ROWS)} AS SELECT DISTINCT * FROM ({every}) ORDER BY ALL{limit}", values
        )
    table = con.table(_ROWS)
    kinds = dict(zip(table.columns, map(str, table.types), strict=True))
    return Rows(_ROWS, tuple(kinds), EVENT_TIMESTAMP), kinds


def _check_outputs(rows: Rows, views: Sequence[View]) -> None:
    """Column names differ in more than case, which DuckDB does not tell apart."""
    names = [*rows.columns, *(output for view in views for _, output in view.features)]
    twice = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if twice:
        raise DataError(
            f"{LABEL}: two columns of the result would be named {twice[0]!r}; "
            "use full_feature_names=True, or rename or drop the column"
        )
