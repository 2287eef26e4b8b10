"""What a retrieval returns: a Feast RetrievalJob that can also hand out its result as a stream of batches."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage
from feast.types import from_feast_to_pyarrow_type

from mtl_rank.errors import DataError
from mtl_rank.features.sources import first_line

Open = Callable[[], tuple[duckdb.DuckDBPyConnection, str, dict[str, Any]]]


@dataclass(frozen=True)
class Query:
    """One SQL statement over inputs that are registered anew for every run.

    connect: gives a fresh connection with the inputs registered.
    sql, values: the statement and what is bound to its parameters.
    """

    connect: Callable[[], duckdb.DuckDBPyConnection]
    sql: str
    values: dict[str, Any]

    def schema(self) -> pa.Schema:
        """The columns of the result, without running the query."""
        with closing(self.connect()) as con, _clear_errors():
            return self._relation(con).limit(0).to_arrow_table().schema

    def table(self) -> pa.Table:
        """The whole result."""
        with closing(self.connect()) as con, _clear_errors():
            return self._relation(con).to_arrow_table()

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The result in its order, `rows` at a time, never all of it in memory."""
        with closing(self.connect()) as con, _clear_errors():
            for batch in self._relation(con).to_arrow_reader(rows):
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)

    def _relation(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        return con.sql(self.sql, params=self.values or None)


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise DataError(
            f"retrieval ran out of memory or temporary disk space: {first_line(error)}. "
            "Raise memory_limit or point temp_directory at a larger disk, below offline_store in feature_store.yaml"
        ) from error
    except duckdb.Error as error:
        raise DataError(f"retrieval failed in DuckDB: {first_line(error)}") from error


class DuckDBAsofRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A retrieval that runs when its result is asked for; `to_arrow_batches` streams it."""

    def __init__(
        self,
        query: Query,
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: Callable[[], RetrievalMetadata] | None = None,
    ) -> None:
        self._query = query
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._read_metadata = metadata
        self._metadata: RetrievalMetadata | None = None

    def to_arrow_batches(self, rows: int = 65536) -> pa.RecordBatchReader:
        """The result as a stream of record batches of at most `rows` rows, on-demand views applied to each."""
        if not self.on_demand_feature_views:
            return pa.RecordBatchReader.from_batches(self._query.schema(), self._query.batches(rows))
        schema = self._output_schema()
        return pa.RecordBatchReader.from_batches(schema, self._transformed(schema, rows))

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        if self._metadata is None and self._read_metadata is not None:
            self._metadata = self._read_metadata()
        return self._metadata

    def to_sql(self) -> str:
        """The statement that DuckDB runs, over the relations registered for it."""
        return self._query.sql

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        raise NotImplementedError

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._query.table()

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return self._query.table().to_pandas()

    def _output_schema(self) -> pa.Schema:
        """Features of on-demand views have the types that the views declare, whatever a single batch holds."""
        declared = {}
        for view in self.on_demand_feature_views:
            for field in view.features:
                name = (
                    f"{view.projection.name_to_use()}__{field.name}"
                    if self.full_feature_names
                    else field.name
                )
                declared[name] = from_feast_to_pyarrow_type(field.dtype)
        empty = _Batch(self, self._query.schema().empty_table()).to_arrow()
        return pa.schema([(field.name, declared.get(field.name, field.type)) for field in empty.schema])

    def _transformed(self, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
        for batch in self._query.batches(rows):
            table = _Batch(self, pa.Table.from_batches([batch])).to_arrow()
            yield from table.cast(schema).combine_chunks().to_batches()


class _Batch(RetrievalJob):  # type: ignore[misc]
    """One batch as a finished retrieval: Feast's own code then applies the on-demand views to it."""

    def __init__(self, job: DuckDBAsofRetrievalJob, table: pa.Table) -> None:
        self._job = job
        self._table = table

    @property
    def full_feature_names(self) -> bool:
        return self._job.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._job.on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._job.metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._table
