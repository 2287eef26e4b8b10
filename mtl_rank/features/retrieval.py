"""Snapshot of entity rows + FeatureService -> a stream of Arrow record batches, from any Feast offline store."""

import glob
from datetime import datetime

import duckdb
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob

from mtl_rank.features.offline_store import DuckDBAsofOfflineStoreConfig
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, ROW_NUMBER, Snapshot
from mtl_rank.features.sql import quote

BATCH_ROWS = 65_536


def retrieve(
    repository: FeatureRepository,
    snapshot: Snapshot,
    start: datetime | None = None,
    end: datetime | None = None,
    first_row: int = 0,
    batch_rows: int = BATCH_ROWS,
) -> pa.RecordBatchReader:
    """The entity rows with the features known at their event timestamps, in the order of the snapshot.

    Columns: those of the snapshot, then `view__feature` for every feature of the service.
    start, end: only rows with start <= event_timestamp < end. first_row: only rows numbered from there on.

    Through DuckDBAsofOfflineStore this is a stream; any other store gives its result as one table.
    Raises MtlRankError when rows and sources do not fit.
    """
    rows = rows_sql(snapshot, start, end, first_row)
    store, service = repository.store, repository.service
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


def _ordered(job: RetrievalJob) -> pa.Table:
    """Feast's other stores return rows in any order."""
    table: pa.Table = job.to_arrow()
    return table.sort_by(ROW_NUMBER)


def rows_sql(
    snapshot: Snapshot, start: datetime | None = None, end: datetime | None = None, first_row: int = 0
) -> str:
    """One SELECT of the entity rows with start <= event_timestamp < end that are numbered from `first_row` on."""
    conditions = [f"{quote(ROW_NUMBER)} >= {int(first_row)}"]
    if start is not None:
        conditions.append(f"{quote(EVENT_TIMESTAMP)} >= {_timestamp_literal(start)}")
    if end is not None:
        conditions.append(f"{quote(EVENT_TIMESTAMP)} < {_timestamp_literal(end)}")
    path = glob.escape(str(snapshot.path.resolve())).replace("'", "''")
    return f"SELECT * FROM read_parquet('{path}') WHERE {' AND '.join(conditions)}"


def _timestamp_literal(time: datetime) -> str:
    return f"make_timestamptz({round(time.timestamp() * 1e6)})"
