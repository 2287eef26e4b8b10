"""A Feast offline store on DuckDB whose point-in-time join costs a sort, not a product.

In any feature repository: `offline_store: {type: mtl_rank.features.offline_store.DuckDBAsofOfflineStore}`.
"""

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from mtl_rank.errors import DataError, did_you_mean
from mtl_rank.features.asof import Rows, View, instant, latest, point_in_time_join
from mtl_rank.features.entity_rows import read_rows
from mtl_rank.features.retrieval_job import DuckDBAsofRetrievalJob, Query
from mtl_rank.features.sources import Table, read_source
from mtl_rank.features.sql import Engine, quote

EVENT_TIMESTAMP = "event_timestamp"


class DuckDBAsofOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """What stands below `offline_store:` in feature_store.yaml.

    memory_limit: such as "4GB"; default: 80 % of the machine's memory.
    temp_directory: where joins larger than memory_limit spill to; default: the system's temporary folder.
    threads: default: one per core.
    """

    type: Literal["mtl_rank.features.offline_store.DuckDBAsofOfflineStore"] = (
        "mtl_rank.features.offline_store.DuckDBAsofOfflineStore"
    )
    memory_limit: str | None = None
    temp_directory: str | None = None
    threads: int | None = None


class DuckDBAsofOfflineStore(OfflineStore):  # type: ignore[misc]
    """Point-in-time retrieval by DuckDB's ASOF join, with Feast's semantics and the order of the entity rows kept."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        filter_by_created_timestamp: bool = False,
    ) -> DuckDBAsofRetrievalJob:
        """Every entity row, in its order, with the features known at its event timestamp.

        entity_df: a pandas, Polars or Arrow table, a parquet path or glob, a SELECT for DuckDB.
        Raises DataError for rows or sources that do not fit, before any long work.
        """
        repo = _repo_path(config)
        engine = _engine(config)
        con = engine.connect()
        rows_table = read_rows(con, "rows", entity_df, repo)
        rows = Rows("rows", tuple(rows_table.columns), _event_timestamp(rows_table))
        views = []
        for index, view in enumerate(feature_views):
            source = read_source(con, f"source {index}", view.batch_source, repo)
            features = _requested(view, feature_refs)
            views.append(_view(view, features, source, rows, full_feature_names))
        con.close()

        def connect() -> duckdb.DuckDBPyConnection:
            con = engine.connect()
            read_rows(con, "rows", entity_df, repo)
            for index, view in enumerate(feature_views):
                read_source(con, f"source {index}", view.batch_source, repo)
            return con

        def metadata() -> RetrievalMetadata:
            time = instant(quote(rows.timestamp))
            span = Query(connect, f"SELECT min({time}), max({time}) FROM {quote(rows.table)}", {}).table()
            first, last = (column[0].as_py() for column in span.columns)
            keys = [column for column in rows.columns if column != rows.timestamp]
            return RetrievalMetadata(feature_refs, keys, first, last)

        return DuckDBAsofRetrievalJob(
            Query(
                connect, point_in_time_join(rows, views, filter_by_created=filter_by_created_timestamp), {}
            ),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=metadata,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> DuckDBAsofRetrievalJob:
        """The newest row of every key between the two times, both included."""
        return _pull(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
            newest=True,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> DuckDBAsofRetrievalJob:
        """Every row between the two times, both included."""
        return _pull(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
            newest=False,
        )


def _repo_path(config: RepoConfig) -> Path:
    return Path(config.repo_path).resolve() if config.repo_path else Path.cwd()


def _engine(config: RepoConfig) -> Engine:
    store = config.offline_store
    return Engine(store.memory_limit, store.temp_directory, store.threads, _repo_path(config))


def _event_timestamp(rows: Table) -> str:
    if EVENT_TIMESTAMP in rows.columns:
        return EVENT_TIMESTAMP
    times = [name for name, kind in rows.columns.items() if kind.startswith("TIMESTAMP")]
    if len(times) == 1:
        return times[0]
    raise DataError(f"entity rows: no column {EVENT_TIMESTAMP!r}. They have: {', '.join(rows.columns)}")


def _requested(view: FeatureView, feature_refs: list[str]) -> list[str]:
    prefix = f"{view.projection.name_to_use()}:"
    return list(dict.fromkeys(ref[len(prefix) :] for ref in feature_refs if ref.startswith(prefix)))


def _view(
    view: FeatureView, features: list[str], source: Table, rows: Rows, full_feature_names: bool
) -> View:
    batch_source = view.batch_source
    label = f"feature view {view.projection.name_to_use()!r}"
    prefix = f"{view.projection.name_alias or view.name}__" if full_feature_names else ""

    def column(name: str) -> str:
        return _column(name, source, batch_source.field_mapping, label)

    keys = []
    for field in view.entity_columns:
        if field.name != DUMMY_ENTITY_ID:
            key = view.projection.join_key_map.get(field.name, field.name)
            if key not in rows.columns:
                raise DataError(
                    f"entity rows: no column {key!r}, the join key of {label}. {did_you_mean(key, rows.columns)}"
                )
            keys.append((key, column(field.name)))
    return View(
        table=source.name,
        keys=tuple(keys),
        timestamp=column(batch_source.timestamp_field),
        created=column(batch_source.created_timestamp_column)
        if batch_source.created_timestamp_column
        else None,
        ttl=view.ttl,
        features=tuple((column(name), f"{prefix}{name}") for name in features),
    )


def _column(name: str, source: Table, field_mapping: dict[str, str], label: str) -> str:
    """The source's own name of a column: field mappings rename columns on their way to Feast."""
    renamed = [old for old, new in field_mapping.items() if new == name and old in source.columns]
    if renamed:
        return renamed[0]
    if name in source.columns:
        return name
    raise DataError(f"{label}: its source has no column {name!r}. {did_you_mean(name, source.columns)}")


def _pull(
    config: RepoConfig,
    data_source: DataSource,
    join_keys: list[str],
    features: list[str],
    timestamp: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
    *,
    newest: bool,
) -> DuckDBAsofRetrievalJob:
    repo = _repo_path(config)
    engine = _engine(config)

    def connect() -> duckdb.DuckDBPyConnection:
        con = engine.connect()
        read_source(con, "source", data_source, repo)
        return con

    con = engine.connect()
    source = read_source(con, "source", data_source, repo)
    con.close()
    label = f"source {data_source.name!r}"

    def column(name: str) -> str:
        return _column(name, source, data_source.field_mapping, label)

    times = [timestamp, *([created] if created else [])]
    names = [*join_keys, *(features or [c for c in source.columns if c not in {*join_keys, *times}]), *times]
    columns = [
        (instant(quote(column(name))) if name in times else quote(column(name)), name)
        for name in dict.fromkeys(names)
    ]
    if not join_keys:
        # A view without entities is stored online under this key.
        columns.append((f"'{DUMMY_ENTITY_VAL}'", DUMMY_ENTITY_ID))
    ts = instant(quote(column(timestamp)))
    values: dict[str, Any] = {}
    where = ["TRUE"]
    if start:
        where.append(f"{ts} >= $start")
        values["start"] = start
    if end:
        where.append(f"{ts} <= $end")
        values["end"] = end
    condition = " AND ".join(where)
    if newest:
        keys = tuple((key, column(key)) for key in join_keys)
        view = View("source", keys, column(timestamp), column(created) if created else None, None, ())
        sql = latest(view, columns, condition)
    else:
        select = ", ".join(f"{sql} AS {quote(name)}" for sql, name in columns)
        sql = f"SELECT {select} FROM source WHERE {condition}"
    return DuckDBAsofRetrievalJob(Query(connect, sql, values))
