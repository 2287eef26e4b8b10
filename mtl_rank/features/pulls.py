"""Rows of one source between two times: what `feast materialize` and saved datasets read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL

from mtl_rank.features.relations import Relation, copy_rows
from mtl_rank.features.requests import column_of, time_columns
from mtl_rank.features.sources import read_source
from mtl_rank.features.sql import instant, quote


@dataclass(frozen=True)
class Pull:
    """The rows of a source with start <= timestamp <= end; None = unbounded.

    features: empty = every column that is neither a key nor a time.
    newest: only the newest row of every key.
    """

    source: DataSource
    base: Path
    keys: Sequence[str]
    features: Sequence[str]
    timestamp: str
    created: str | None
    start: datetime | None
    end: datetime | None
    newest: bool

    def prepare(self, con: duckdb.DuckDBPyConnection) -> tuple[str, dict[str, Any]]:
        """The statement and its values. Raises DataError when the source cannot be read or lacks a column."""
        label = f"source {self.source.name!r}"
        source = read_source(con, "source", self.source, self.base, label)
        if source.catalog is not None:
            source = copy_rows(con, "copy", source, source.columns)
        mapping = self.source.field_mapping
        timestamp, created = time_columns(source, self.timestamp, self.created, mapping)
        columns = {name: source.value(column_of(source, name, mapping)) for name in self._names(source)}
        times = {self.timestamp: instant(f"s.{quote(timestamp)}")}
        if self.created and created:
            times[self.created] = instant(f"s.{quote(created)}")
        columns |= times
        keys = [columns[key] for key in self.keys]
        if not keys:
            # Under this key the online store holds a view without entities.
            columns[DUMMY_ENTITY_ID] = f"'{DUMMY_ENTITY_VAL}'"
        select = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns.items())
        where, values = self._where(times[self.timestamp])
        sql = f"SELECT {select} FROM {source.sql} AS s WHERE {where}"
        order = [*times.values(), *([source.position] if source.position else [])]
        if self.newest:
            newest_first = ", ".join(f"{each} DESC NULLS LAST" for each in order)
            partition = f"PARTITION BY {', '.join(keys)} " if keys else ""
            sql += f" QUALIFY row_number() OVER ({partition}ORDER BY {newest_first}) = 1"
        elif not keys:
            # Feast writes such rows to the online store one after another: the newest must come last.
            sql += f" ORDER BY {', '.join(order)}"
        return sql, {**source.values, **values}

    def _where(self, time: str) -> tuple[str, dict[str, Any]]:
        bounds = {name: value for name, value in (("start", self.start), ("end", self.end)) if value}
        signs = {"start": ">=", "end": "<="}
        return " AND ".join(f"{time} {signs[name]} ${name}" for name in bounds) or "TRUE", bounds

    def _names(self, source: Relation) -> list[str]:
        times = {self.timestamp, self.created}
        wanted = self.features or [name for name in source.columns if name not in times]
        return list(dict.fromkeys([*self.keys, *wanted]))
