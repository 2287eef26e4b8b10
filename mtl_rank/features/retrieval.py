"""Snapshot of entity rows + FeatureService -> a stream of Arrow record batches, from any Feast offline store."""

import glob
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import duckdb
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob

from mtl_rank.features.offline_store import DuckDBAsofOfflineStoreConfig
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, ROW_NUMBER, Snapshot
from mtl_rank.features.sql import Engine, quote

BATCH_ROWS = 65_536


def retrieve(
    repository: FeatureRepository,
    snapshot: Snapshot,
    start: datetime | None = None,
    end: datetime | None = None,
    first_row: int = 0,
    last_row: int | None = None,
    batch_rows: int = BATCH_ROWS,
) -> pa.RecordBatchReader:
    """The entity rows with the features known at their event timestamps, in the order of the snapshot.

    Columns: those of the snapshot, then `view__feature` for every feature of the service.
    start, end: only rows with start <= event_timestamp < end.
    first_row, last_row: only rows numbered from the one on and before the other.

    Through DuckDBAsofOfflineStore this is a stream; any other store gives its result as one table. For a service
    without views, whose model reads columns of the rows alone, they are the rows.
    Raises MtlRankError when rows and sources do not fit.
    """
    rows = rows_sql(snapshot, start, end, first_row, last_row)
    store, service = repository.store, repository.service
    if not service.feature_view_projections:
        return read_rows_of(snapshot, first_row, last_row, start, end, batch_rows=batch_rows)
    if isinstance(store.config.offline_store, DuckDBAsofOfflineStoreConfig):
        job = store.get_historical_features(entity_df=rows, features=service, full_feature_names=True)
        return job.to_arrow_batches(batch_rows)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        entity_df = con.sql(rows).df()
    job = store.get_historical_features(entity_df=entity_df, features=service, full_feature_names=True)
    return _ordered(job).to_reader(batch_rows)


def check_retrieval(repository: FeatureRepository, snapshot: Snapshot) -> None:
    """Raise MtlRankError for rows that do not fit the sources, where that can be told without the whole join."""
    if isinstance(repository.store.config.offline_store, DuckDBAsofOfflineStoreConfig):
        retrieve(repository, snapshot).close()


def read_rows_of(
    snapshot: Snapshot,
    first_row: int = 0,
    last_row: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    batch_rows: int = BATCH_ROWS,
) -> pa.RecordBatchReader:
    """The rows of a snapshot in their order, at most `batch_rows` at a time; which ones, `retrieve` says."""
    sql = rows_sql(snapshot, start, end, first_row, last_row)

    def batches() -> Iterator[pa.RecordBatch]:
        with closing(Engine().connect()) as con:
            for batch in con.sql(sql).to_arrow_reader(batch_rows):
                yield from (batch.slice(at, batch_rows) for at in range(0, batch.num_rows, batch_rows))

    with closing(Engine().connect()) as con:
        schema = con.sql(f"SELECT * FROM ({sql}) LIMIT 0").to_arrow_table().schema
    return pa.RecordBatchReader.from_batches(schema, batches())


def _ordered(job: RetrievalJob) -> pa.Table:
    """Feast's other stores return rows in any order."""
    table: pa.Table = job.to_arrow()
    return table.sort_by(ROW_NUMBER)


def rows_sql(
    snapshot: Snapshot,
    start: datetime | None = None,
    end: datetime | None = None,
    first_row: int = 0,
    last_row: int | None = None,
) -> str:
    """One SELECT of entity rows with start <= event_timestamp < end, numbered from `first_row` to before `last_row`."""
    conditions = [f"{quote(ROW_NUMBER)} >= {int(first_row)}"]
    if last_row is not None:
        conditions.append(f"{quote(ROW_NUMBER)} < {int(last_row)}")
    if start is not None:
        conditions.append(f"{quote(EVENT_TIMESTAMP)} >= {_timestamp_literal(start)}")
    if end is not None:
        conditions.append(f"{quote(EVENT_TIMESTAMP)} < {_timestamp_literal(end)}")
    path = glob.escape(str(snapshot.path.resolve())).replace("'", "''")
    return f"SELECT * FROM read_parquet('{path}') WHERE {' AND '.join(conditions)}"


def _timestamp_literal(time: datetime) -> str:
    return f"make_timestamptz({round(time.timestamp() * 1e6)})"
