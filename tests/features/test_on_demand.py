"""On-demand views in streams and online: asked only with rows, computing from what offline gives, errors by name."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64
from stores import OURS, at, parquet

from mtl_rank.errors import DataError
from mtl_rank.features.online import retrieve_online
from mtl_rank.features.repository import FeatureRepository, open_repository
from mtl_rank.features.retrieval import retrieve
from mtl_rank.features.snapshot import Snapshot, snapshot_rows

KEYS = ["user", "item"]
DAY = 86_400.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository, materialised: clicks of users hold for a day, prices of items for ever."""
    folder = tmp_path_factory.mktemp("on_demand")
    (folder / "feature_store.yaml").write_text(
        "project: shop\nprovider: local\nregistry: registry.db\nonline_store: {type: sqlite, path: online.db}\n"
        f"offline_store: {{type: {OURS}}}\nentity_key_serialization_version: 3\n"
    )
    user, item = (Entity(name=key, join_keys=[key], value_type=ValueType.INT64) for key in KEYS)
    clicks = FeatureView(
        name="clicks",
        entities=[user],
        ttl=timedelta(days=1),
        schema=[Field(name="count", dtype=Int64), Field(name="rate", dtype=Float64)],
        source=parquet(
            folder / "clicks.parquet",
            {"user": [1, 2], "ts": [at(0), at(5 * DAY)], "count": [3, 4], "rate": [0.1, 0.2]},
        ),
    )
    price = FeatureView(
        name="price",
        entities=[item],
        schema=[Field(name="price", dtype=Float64)],
        source=parquet(folder / "price.parquet", {"item": [1, 2], "ts": [at(0), at(0)], "price": [7.0, 8.0]}),
    )

    @on_demand_feature_view(sources=[clicks], schema=[Field(name="cold", dtype=Int64)], mode="pandas")
    def cold(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"cold": inputs["count"].isna().astype("int64")})

    @on_demand_feature_view(sources=[price], schema=[Field(name="root", dtype=Float64)], mode="pandas")
    def root(inputs: pd.DataFrame) -> pd.DataFrame:
        # NumPy cannot call this without rows.
        return pd.DataFrame({"root": np.vectorize(lambda value: value**0.5)(inputs["price"])})

    @on_demand_feature_view(sources=[price], schema=[Field(name="broken", dtype=Float64)], mode="pandas")
    def broken(inputs: pd.DataFrame) -> pd.DataFrame:
        # Feast asks with a price of 1 when the view is applied.
        if (inputs["price"] > 1).any():
            raise ZeroDivisionError("no such price")
        return pd.DataFrame({"broken": inputs["price"]})

    services = [
        FeatureService(name="computed_alone", features=[price, cold]),
        FeatureService(name="with_its_source", features=[price, clicks[["rate"]], cold]),
        FeatureService(name="renamed", features=[price, clicks.with_name("of_user"), cold]),
        FeatureService(name="vectorized", features=[clicks, root]),
        FeatureService(name="failing", features=[price, broken]),
    ]
    store = FeatureStore(str(folder))
    store.apply([user, item, clicks, price, cold, root, broken, *services])
    store.materialize(at(-1).to_pydatetime(), at(6 * DAY).to_pydatetime())
    return folder


def opened(folder: Path, service: str) -> FeatureRepository:
    return open_repository(folder, service, {})


def rows(folder: Path, users: list[int | None], items: list[int | None]) -> Snapshot:
    given = pa.table({"user": pa.array(users, pa.int64()), "item": pa.array(items, pa.int64())})
    return snapshot_rows(
        given, folder, KEYS, folder / "rows_of_it.parquet", as_of=datetime(2026, 1, 7, tzinfo=UTC)
    )


@pytest.mark.parametrize("service", ["computed_alone", "with_its_source", "renamed", "vectorized"])
def test_online_is_offline_also_where_a_source_is_too_old_or_a_key_is_null(
    folder: Path, service: str
) -> None:
    # User 1 was last seen six days ago, user 2 one day ago, user 9 never.
    snapshot = rows(folder, [1, 2, 9, None, 2, None], [1, 2, 1, 2, None, None])
    offline, online = (
        read(opened(folder, service), snapshot).read_all() for read in (retrieve, retrieve_online)
    )
    # Offline, Feast adds what on-demand views read.
    for name in online.column_names:
        assert online[name].to_pylist() == offline[name].to_pylist(), name
        assert online.schema.field(name).type == offline.schema.field(name).type
    if service != "vectorized":
        assert offline["cold__cold"].to_pylist() == [1, 0, 1, 1, 0, 1]
        assert offline["price__price"].to_pylist() == [7.0, 8.0, 7.0, 8.0, None, None]


def test_a_function_is_asked_only_where_there_are_rows(folder: Path) -> None:
    found = retrieve(opened(folder, "vectorized"), rows(folder, [1, 2], [1, 2])).read_all()
    assert found["root__root"].to_pylist() == pytest.approx([7**0.5, 8**0.5])


def test_a_function_that_fails_is_named(folder: Path) -> None:
    snapshot = rows(folder, [1], [1])
    for read in (retrieve, retrieve_online):
        with pytest.raises(
            DataError, match="on-demand feature view 'broken': ZeroDivisionError: no such price"
        ):
            read(opened(folder, "failing"), snapshot).read_all()
