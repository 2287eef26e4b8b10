"""Feast's own DuckDB store and ours, called on the same feature views without a running repository."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureView, Field, FileSource
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.registry.registry import Registry
from feast.repo_config import RepoConfig
from feast.types import Float64, Int64
from feast.utils import make_df_tzaware

from mtl_rank.features.offline_store import DuckDBAsofOfflineStore, DuckDBAsofOfflineStoreConfig
from mtl_rank.features.retrieval_job import DuckDBAsofRetrievalJob

START = pd.Timestamp("2026-01-01", tz="UTC")
OURS = "mtl_rank.features.offline_store.DuckDBAsofOfflineStore"


def at(seconds: float) -> pd.Timestamp:
    """A time some seconds after the start of all test data."""
    return START + pd.Timedelta(microseconds=round(seconds * 1e6))


def repo_config(base: Path, offline_store: Any) -> RepoConfig:
    """The configuration of a feature repository in the folder `base`."""
    return RepoConfig(
        project="shop",
        provider="local",
        registry="registry.db",
        offline_store=offline_store,
        entity_key_serialization_version=3,
        repo_path=base,
    )


def view(
    source: DataSource,
    keys: Mapping[str, Any] | None = None,
    features: Mapping[str, Any] | None = None,
    ttl: timedelta | None = None,
    name: str = "stats",
) -> FeatureView:
    """A feature view as `feast apply` leaves it: keys and features are names with Feast types."""
    keys = {"user": Int64} if keys is None else keys
    entities = [
        Entity(name=f"{key} entity", join_keys=[key], value_type=kind.to_value_type())
        for key, kind in keys.items()
    ]
    fields = {**keys, **(features or {"x": Float64})}
    schema = [Field(name=column, dtype=kind) for column, kind in fields.items()]
    return FeatureView(name=name, entities=entities, schema=schema, source=source, ttl=ttl)


def parquet(path: Path, columns: Mapping[str, Any] | pd.DataFrame, **source: Any) -> FileSource:
    """A file source of these columns, with the timestamp in `ts`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(path)
    return FileSource(name=path.stem, path=str(path), timestamp_field="ts", **source)


def refs(views: Sequence[FeatureView]) -> list[str]:
    """References to all features of these views."""
    return [f"{each.projection.name_to_use()}:{field.name}" for each in views for field in each.features]


def ours(
    rows: Any, views: Sequence[FeatureView], registry: Registry, base: Path = Path(), **options: Any
) -> DuckDBAsofRetrievalJob:
    """A retrieval from our store. options: of the store's configuration, or of get_historical_features."""
    known = DuckDBAsofOfflineStoreConfig.model_fields
    store = {"threads": 1} | {name: value for name, value in options.items() if name in known}
    return DuckDBAsofOfflineStore.get_historical_features(
        config=repo_config(base, DuckDBAsofOfflineStoreConfig(**store)),
        feature_views=list(views),
        feature_refs=options.pop("feature_refs", None) or refs(views),
        entity_df=rows,
        registry=registry,
        project="shop",
        **{name: value for name, value in options.items() if name not in known},
    )


def feasts(
    rows: pd.DataFrame, views: Sequence[FeatureView], registry: Registry, **options: Any
) -> pd.DataFrame:
    """The result of Feast's own DuckDB store, which FeatureStore hands tables with times in UTC alone."""
    return (
        DuckDBOfflineStore.get_historical_features(
            config=repo_config(Path(), DuckDBOfflineStoreConfig()),
            feature_views=list(views),
            feature_refs=refs(views),
            entity_df=make_df_tzaware(rows),
            registry=registry,
            project="shop",
            **options,
        )
        .to_arrow()
        .to_pandas()
    )
