"""What a retrieval returns: a Feast RetrievalJob that can also hand out its result as a stream of batches."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

import duckdb
import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage
from feast.types import from_feast_to_pyarrow_type

from mtl_rank.errors import ConfigError, DataError
from mtl_rank.features.interrupts import interruptible
from mtl_rank.features.point_in_time import PointInTimeJoin
from mtl_rank.features.relations import first_line
from mtl_rank.features.sql import Engine
from mtl_rank.features.writes import Places, save, stage

WHOLE_RESULT_ROWS = 2**20


class Query(Protocol):
    """Something that DuckDB computes anew at every run."""

    def schema(self) -> pa.Schema:
        """The columns of the result. Reads no rows."""

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The result in its order, at most `rows` at a time."""

    def sql(self) -> str:
        """What DuckDB runs, for reading."""


@dataclass(frozen=True)
class Select:
    """One SELECT. prepare: registers its inputs on a fresh connection and gives the statement and its values."""

    engine: Engine
    prepare: Callable[[duckdb.DuckDBPyConnection], tuple[str, dict[str, Any]]]

    def schema(self) -> pa.Schema:
        with closing(self.engine.connect()) as con:
            sql, values = self.prepare(con)
            return con.sql(f"SELECT * FROM ({sql}) LIMIT 0", params=values or None).to_arrow_table().schema

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        with closing(self.engine.connect()) as con:
            sql, values = self.prepare(con)
            for batch in con.sql(sql, params=values or None).to_arrow_reader(rows):
                yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))

    def sql(self) -> str:
        with closing(self.engine.connect()) as con:
            return self.prepare(con)[0]


class LazyMetadata(RetrievalMetadata):  # type: ignore[misc]
    """Metadata whose times, which take a scan of the entity rows, are read only when they are asked for."""

    def __init__(
        self,
        features: list[str],
        keys: list[str],
        span: Callable[[], tuple[datetime | None, datetime | None]],
    ) -> None:
        self.features = features
        self.keys = keys
        self._read_span = span

    @cached_property
    def _span(self) -> tuple[datetime | None, datetime | None]:
        return self._read_span()

    @property
    def min_event_timestamp(self) -> datetime | None:
        return self._span[0]

    @property
    def max_event_timestamp(self) -> datetime | None:
        return self._span[1]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what DuckDB says while it runs into a DataError that tells what to do; Ctrl-C stays what it is."""
    try:
        with interruptible():
            yield
    except duckdb.OutOfMemoryException as error:
        raise DataError(
            f"retrieval ran out of memory or of disk space for temporary files: {first_line(error)}. "
            "Raise memory_limit or set temp_directory to a larger disk, below offline_store in feature_store.yaml"
        ) from error
    except duckdb.Error as error:
        raise DataError(f"retrieval failed: {first_line(error)}") from error


class DuckDBAsofRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A retrieval that runs when its result is asked for; `to_arrow_batches` streams it."""

    def __init__(
        self,
        query: Query,
        *,
        places: Places,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._query = query
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._places = places
        self._metadata = metadata

    def to_arrow_batches(self, rows: int = 65536) -> pa.RecordBatchReader:
        """The result as a stream of record batches of at most `rows` rows, on-demand views applied to each."""
        with clear_errors():
            schema = self._query.schema()
        if self.on_demand_feature_views:
            schema = self._transformed_schema(schema)
            return pa.RecordBatchReader.from_batches(schema, self._transformed(schema, rows))
        return pa.RecordBatchReader.from_batches(schema, self._batches(rows))

    def match_times(self, rows: int = 65536) -> Iterator[pa.RecordBatch]:
        """The entity rows in order with, per view, the time of the feature row each of them got.

        The columns are called as messages call the views: feature view 'NAME'. None for a job that is no join.
        """
        if isinstance(self._query, PointInTimeJoin):
            with clear_errors():
                yield from self._query.match_times().batches(rows)

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def to_sql(self) -> str:
        """The statements that DuckDB runs, over the relations registered for them."""
        with clear_errors():
            return self._query.sql()

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,  # noqa: ARG002, Feast passes it
    ) -> None:
        """Write the result, features of on-demand views included, as a stream.

        Raises SavedDatasetLocationAlreadyExists when something is there and allow_overwrite is False.
        """
        save(self.to_arrow_batches(), storage.to_data_source(), self._places.base, overwrite=allow_overwrite)

    def supports_remote_storage_export(self) -> bool:
        return self._places.staging is not None

    def to_remote_storage(self) -> list[str]:
        """Write the result to a new folder below staging_location and return the paths of its parquet files.

        Raises ConfigError when feature_store.yaml names no staging_location.
        """
        if self._places.staging is None:
            raise ConfigError(
                "to_remote_storage needs staging_location below offline_store in feature_store.yaml"
            )
        return stage(self.to_arrow_batches(), self._places)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002, Feast passes it
        with clear_errors():
            schema = self._query.schema()
            return pa.Table.from_batches(self._query.batches(WHOLE_RESULT_ROWS), schema)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def _batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        with clear_errors():
            yield from self._query.batches(rows)

    def _transformed(self, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
        for batch in self._batches(rows):
            table = with_on_demand(
                pa.Table.from_batches([batch]),
                self.on_demand_feature_views,
                self.full_feature_names,
                self.metadata,
            )
            yield from as_declared(table, schema).combine_chunks().to_batches()

    def _transformed_schema(self, schema: pa.Schema) -> pa.Schema:
        """Features of on-demand views have the types that the views declare, whatever a single batch holds.

        The functions are not asked: not each of them works without rows.
        """
        refs = self.metadata.features if self.metadata else []
        computed = []
        for view in self.on_demand_feature_views:
            name = view.projection.name_to_use()
            wanted = {
                feature for of, _, feature in (ref.partition(":") for ref in refs) if of in (name, view.name)
            }
            prefix = f"{name}__" if self.full_feature_names else ""
            computed += [
                (f"{prefix}{field.name}", from_feast_to_pyarrow_type(field.dtype))
                for field in view.features
                if field.name in wanted or not wanted
            ]
        return pa.schema([*schema, *(pa.field(*of_one) for of_one in computed)])


def with_on_demand(
    table: pa.Table,
    views: list[OnDemandFeatureView],
    full_feature_names: bool,
    metadata: RetrievalMetadata | None = None,
) -> pa.Table:
    """Rows with the features that their sources and request data lack, computed by Feast's own code.

    metadata: which of them were asked for; None = all. Raises DataError when a function of a view fails.
    """
    try:
        return _Finished(table, views, full_feature_names, metadata).to_arrow()
    # The function of a view is the user's, and may raise anything.
    except Exception as error:
        names = ", ".join(repr(view.projection.name_to_use()) for view in views)
        reason = (str(error).strip().splitlines() or [""])[0]
        raise DataError(f"on-demand feature view {names}: {type(error).__name__}: {reason}") from error


def as_declared(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema, in its types. Raises DataError for what an on-demand view does not give as declared."""
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise DataError(f"on-demand feature {missing[0]!r} is declared, but its function does not return it")
    columns = []
    for field in schema:
        try:
            columns.append(table[field.name].cast(field.type))
        except pa.ArrowException as error:
            raise DataError(
                f"on-demand feature {field.name!r} is declared as {field.type}: {error}"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


class _Finished(RetrievalJob):  # type: ignore[misc]
    """A table as a finished retrieval: Feast then applies on-demand views to it."""

    def __init__(
        self,
        table: pa.Table,
        views: list[OnDemandFeatureView],
        full_feature_names: bool,
        metadata: RetrievalMetadata | None,
    ) -> None:
        self._table = table
        self._views = views
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002, Feast passes it
        return self._table
