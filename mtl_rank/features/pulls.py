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

_LOG_DATE = "__log_date"


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
        columns = {key: source.value(column_of(source, key, mapping)) for key in self.keys}
        columns |= {name: source.value(column_of(source, name, mapping)) for name in self._features(source)}
        columns[self.timestamp] = instant(f"s.{quote(timestamp)}")
        if self.created and created:
            columns[self.created] = instant(f"s.{quote(created)}")
        partition = ", ".join(columns[key] for key in self.keys)
        order = f"{columns[self.timestamp]} DESC NULLS LAST"
        if self.created:
            order += f", {columns[self.created]} DESC NULLS LAST"
        if not self.keys:
            # Under this key the online store holds a view without entities.
            columns[DUMMY_ENTITY_ID] = f"'{DUMMY_ENTITY_VAL}'"
        values = dict(source.values)
        where = []
        if self.start:
            where.append(f"{instant(f's.{quote(timestamp)}')} >= $start")
            values["start"] = self.start
        if self.end:
            where.append(f"{instant(f's.{quote(timestamp)}')} <= $end")
            values["end"] = self.end
        select = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns.items())
        sql = f"SELECT {select} FROM {source.sql} AS s WHERE {' AND '.join(where) or 'TRUE'}"
        if self.newest:
            over = f"{f'PARTITION BY {partition} ' if partition else ''}ORDER BY {order}"
            sql += f" QUALIFY row_number() OVER ({over}) = 1"
        return sql, values

    def _features(self, source: Relation) -> list[str]:
        if self.features:
            return [name for name in self.features if name != _LOG_DATE]
        known = {*self.keys, self.timestamp, self.created}
        return [name for name in source.columns if name not in known]
