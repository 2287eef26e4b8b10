"""A Feast offline store on DuckDB whose point-in-time join costs a sort, not a product.

In any feature repository: `offline_store: {type: mtl_rank.features.offline_store.DuckDBAsofOfflineStore}`.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import compute_non_entity_date_range
from pydantic import ConfigDict, Field, PositiveInt

from mtl_rank.errors import DataError
from mtl_rank.features.limits import Limits
from mtl_rank.features.point_in_time import PointInTimeJoin
from mtl_rank.features.pulls import Pull
from mtl_rank.features.relations import arrow_types
from mtl_rank.features.requests import Period, Request, label_of
from mtl_rank.features.retrieval_job import DuckDBAsofRetrievalJob, LazyMetadata, Select, clear_errors
from mtl_rank.features.sources import read_source
from mtl_rank.features.sql import Engine
from mtl_rank.features.writes import Places, append_batch, write_logs

logger = logging.getLogger(__name__)


class DuckDBAsofOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """What stands below `offline_store:` in feature_store.yaml.

    memory_limit: such as "4GB"; default: 80 % of the machine's memory.
    temp_directory: where what is larger spills to; default: a folder below the system's temporary one.
    threads: default: one per core.
    join_rows: entity rows plus feature rows in one join; larger inputs are joined one window of time after
        another. fetch_rows: entity rows whose features are read together. Default: as many as memory_limit holds.
    staging_location: a folder, local or s3://..., for to_remote_storage; with an S3 endpoint of its own if need be.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["mtl_rank.features.offline_store.DuckDBAsofOfflineStore"] = (
        "mtl_rank.features.offline_store.DuckDBAsofOfflineStore"
    )
    memory_limit: Annotated[str, Field(pattern=r"(?i)^\d+(\.\d+)? ?([KMGT]i?)?B$")] | None = None
    temp_directory: str | None = None
    threads: PositiveInt | None = None
    join_rows: PositiveInt | None = None
    fetch_rows: PositiveInt | None = None
    staging_location: str | None = None
    staging_location_endpoint_override: str | None = None


class DuckDBAsofOfflineStore(OfflineStore):  # type: ignore[misc]
    """Point-in-time retrieval by DuckDB's ASOF join, with Feast's semantics and the entity rows in their order."""

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

        entity_df: a pandas, Polars or Arrow table; a parquet path, folder or glob, one SELECT for DuckDB, or
            `file.duckdb:table`; None = one row for every (timestamp, keys) that the views hold in the period.
        Raises DataError for rows or sources that do not fit, before any long work.
        """
        rows = entity_df
        if rows is None:
            rows = Period(*compute_non_entity_date_range(feature_views, start_date, end_date))
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        request = Request(
            views=feature_views,
            feature_refs=feature_refs,
            on_demand=on_demand,
            rows=rows,
            base=_base(config),
            full_feature_names=full_feature_names,
        )
        limits = Limits(config.offline_store.join_rows, config.offline_store.fetch_rows)
        join = PointInTimeJoin(_engine(config), request.register, limits, filter_by_created_timestamp)
        with clear_errors():
            described, _ = join.description
        keys = [column for column in described.columns if column != described.timestamp]
        return DuckDBAsofRetrievalJob(
            join,
            places=_places(config),
            full_feature_names=full_feature_names,
            on_demand_feature_views=on_demand,
            metadata=LazyMetadata(feature_refs, keys, rows.span if isinstance(rows, Period) else join.span),
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
        columns = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        return _pull(config, Pull(data_source, _base(config), *columns, start_date, end_date, newest=True))

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
        columns = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        return _pull(config, Pull(data_source, _base(config), *columns, start_date, end_date, newest=False))

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Add rows to the batch source of a view: a new parquet file, or rows of a DuckDB table.

        Raises DataError when the columns or their types do not fit the source.
        """
        append_batch(table, feature_view.batch_source, _base(config), label_of(feature_view))
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,  # noqa: ARG004, Feast passes it
        logging_config: LoggingConfig,
        registry: BaseRegistry,  # noqa: ARG004, Feast passes it
    ) -> None:
        """Add logs of served features, a table or a folder of parquet files, to their destination."""
        write_logs(data, logging_config.destination, _base(config))

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Warns, as Feast does, when a source cannot be read: its data may come later."""
        try:
            self.get_table_column_names_and_types_from_data_source(config, data_source)
        except DataError as error:
            logger.warning("%s", error)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> list[tuple[str, str]]:
        """Names and Arrow types of a source's columns, for folders, globs and relative paths too."""
        label = f"source {data_source.name!r}"
        with closing(_engine(config).connect()) as con:
            return arrow_types(con, read_source(con, "source", data_source, _base(config), label))


def _pull(config: RepoConfig, pull: Pull) -> DuckDBAsofRetrievalJob:
    engine = _engine(config)
    with closing(engine.connect()) as con:
        pull.prepare(con)
    return DuckDBAsofRetrievalJob(Select(engine, pull.prepare), places=_places(config))


def _base(config: RepoConfig) -> Path:
    """The folder in which relative paths start."""
    return Path(config.repo_path or ".").resolve()


def _places(config: RepoConfig) -> Places:
    store = config.offline_store
    return Places(_base(config), store.staging_location, store.staging_location_endpoint_override)


def _engine(config: RepoConfig) -> Engine:
    store, base = config.offline_store, _base(config)
    spill = str(base / store.temp_directory) if store.temp_directory else None
    return Engine(store.memory_limit, spill, store.threads, base)
