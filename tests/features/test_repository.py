"""A running feature repository on our store: apply, plan, retrieve, materialize, save, log, write, tear down."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RequestSource,
    ValueType,
)
from feast.data_format import ParquetFormat
from feast.diff.property_diff import TransitionType
from feast.errors import RequestDataNotFoundInEntityDfException, SavedDatasetLocationAlreadyExists
from feast.feature_logging import FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.repo_contents import RepoContents
from feast.types import Array, Float64, Int32, Int64, String
from stores import OURS, at

from mtl_rank.errors import DataError
from mtl_rank.features.duckdb_source import DuckDBSource, SavedDatasetDuckDBStorage

HOURS = 100
ROWS = pd.DataFrame(
    {
        "user": np.arange(50) % 7,
        "event_timestamp": [at(3600 * (i * 3 % HOURS)) for i in range(50)],
        "bonus": np.arange(50) * 1.0,
    }
)

SETTINGS = """
project: shop
provider: local
registry: registry.db
offline_store:
  type: {type}
  staging_location: staged
online_store: {{type: sqlite, path: online.db}}
entity_key_serialization_version: 3
"""


def objects() -> list[object]:
    """One view on a file whose path is relative, one without entities on a folder, one on a DuckDB table."""
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
    source = FileSource(
        name="stats",
        path="data/stats.parquet",
        timestamp_field="ts",
        created_timestamp_column="created",
        field_mapping={"score_raw": "score"},
    )
    schema = [
        Field(name="score", dtype=Float64),
        Field(name="name", dtype=String),
        Field(name="seen", dtype=Array(Int64)),
    ]
    stats = FeatureView(name="stats", entities=[user], ttl=timedelta(hours=10), schema=schema, source=source)
    everyone = FeatureView(
        name="everyone",
        entities=[],
        schema=[Field(name="mean", dtype=Float64)],
        source=FileSource(
            name="everyone", path="data/everyone", file_format=ParquetFormat(), timestamp_field="ts"
        ),
    )
    # Neither its columns nor their types are given: they are read from the table.
    table = DuckDBSource(path="data/shop.duckdb", table="orders", timestamp_field="ts")
    orders = FeatureView(name="orders", entities=[user], source=table)
    given = RequestSource(name="given", schema=[Field(name="bonus", dtype=Float64)])

    @on_demand_feature_view(
        sources=[stats, given], schema=[Field(name="total", dtype=Float64), Field(name="half", dtype=Float64)]
    )
    def extra(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"total": inputs["score"] + inputs["bonus"], "half": inputs["score"] / 2})

    logged = LoggingConfig(destination=FileLoggingDestination(path="logs"))
    service = FeatureService(name="all", features=[stats, everyone, orders, extra[["total"]]])
    views = FeatureService(name="logged", features=[stats[["score", "name"]]], logging_config=logged)
    return [user, stats, everyone, orders, extra, service, views]


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = tmp_path_factory.mktemp("applied") / "repo"
    (repo / "data" / "everyone").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(SETTINGS.format(type=OURS))
    hours = np.arange(HOURS)
    history = pd.DataFrame(
        {
            "user": hours % 5,
            "ts": [at(3600 * h) for h in hours],
            "created": [at(3600 * h + 60) for h in hours],
            "score_raw": hours * 1.0,
            "name": [f"n{h}" for h in hours],
            "seen": [[h, h + 1] for h in hours],
        }
    ).astype({"ts": "datetime64[ns, UTC]", "created": "datetime64[ns, UTC]"})
    history.to_parquet(repo / "data" / "stats.parquet")
    for part in range(2):
        frame = pd.DataFrame(
            {"ts": [at(3600 * h) for h in hours if h % 2 == part], "mean": hours[part::2] * 1.0}
        )
        frame.to_parquet(repo / "data" / "everyone" / f"{part}.parquet")
    with duckdb.connect(str(repo / "data" / "shop.duckdb")) as con:
        con.register("history", history)
        con.execute("CREATE TABLE orders AS SELECT user, ts, score_raw::INTEGER AS orders FROM history")
    FeatureStore(repo_path=str(repo)).apply(objects())
    return repo


@pytest.fixture
def store(applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeatureStore]:
    """A copy of the repository, opened from another current folder."""
    repo = shutil.copytree(applied, tmp_path / "repo")
    monkeypatch.chdir(tmp_path)
    return FeatureStore(repo_path=str(repo))


def expected() -> pd.DataFrame:
    """The last hour of each user in the 10 hours up to the event, and everyone's mean at the event, by hand."""
    found = []
    for user, time in zip(ROWS["user"], ROWS["event_timestamp"], strict=True):
        hour = int((time - at(0)).total_seconds() // 3600)
        known = [h for h in range(HOURS) if h % 5 == user and h <= hour]
        found.append(
            {
                "score": float(known[-1]) if known and hour - known[-1] <= 10 else None,
                "orders": float(known[-1]) if known else None,
                "mean": float(hour),
            }
        )
    return pd.DataFrame(found)


def test_columns_of_a_table_are_inferred(store: FeatureStore) -> None:
    orders = store.get_feature_view("orders")
    assert [(field.name, field.dtype) for field in orders.features] == [("orders", Int32)]
    assert orders.batch_source == DuckDBSource(path="data/shop.duckdb", table="orders", timestamp_field="ts")


@pytest.mark.parametrize("full_names", [True, False])
def test_a_service_is_retrieved(store: FeatureStore, full_names: bool) -> None:
    job = store.get_historical_features(ROWS, store.get_feature_service("all"), full_feature_names=full_names)
    frame = job.to_df()
    plain = {
        "score": "stats__score",
        "name": "stats__name",
        "seen": "stats__seen",
        "mean": "everyone__mean",
        "orders": "orders__orders",
        "total": "extra__total",
    }
    assert list(frame) == [*ROWS, *(plain.values() if full_names else plain)]
    frame = frame.rename(columns={full: name for name, full in plain.items()})
    answer = expected()
    for column in ("score", "orders", "mean"):
        np.testing.assert_array_equal(frame[column].astype(float), answer[column])
    np.testing.assert_array_equal(frame["total"], answer["score"] + ROWS["bonus"])
    assert [view.name for view in job.on_demand_feature_views] == ["extra"]


@pytest.mark.parametrize("rows", [7, 1000])
def test_batches_are_the_table(store: FeatureStore, rows: int) -> None:
    job = store.get_historical_features(ROWS, store.get_feature_service("all"), full_feature_names=True)
    stream = job.to_arrow_batches(rows)
    schema = stream.schema
    batches = list(stream)
    assert all(batch.schema == schema and 0 < batch.num_rows <= rows for batch in batches)
    assert pa.Table.from_batches(batches, schema).equals(job.to_arrow().cast(schema))


def test_request_data_is_asked_for(store: FeatureStore) -> None:
    with pytest.raises(RequestDataNotFoundInEntityDfException):
        store.get_historical_features(ROWS.drop(columns="bonus"), ["extra:total"])


def test_request_data_is_asked_for_in_any_form_of_rows(store: FeatureStore) -> None:
    query = "SELECT 1 AS user, TIMESTAMP '2026-01-01 05:00:00' AS event_timestamp"
    with pytest.raises(DataError, match="'bonus', which on-demand view 'extra' needs"):
        store.get_historical_features(query, ["extra:total"])
    frame = store.get_historical_features(f"{query}, 0.5::DOUBLE AS bonus", ["extra:total"]).to_df()
    assert frame["total"].tolist() == [1.5]


def test_materialize_loads_the_last_rows_also_from_nanoseconds(store: FeatureStore) -> None:
    store.materialize(at(0).to_pydatetime(), at(3600 * 50).to_pydatetime())
    features = ["stats:score", "stats:seen", "orders:orders", "everyone:mean"]
    online = store.get_online_features(features, [{"user": 0}, {"user": 4}, {"user": 9}]).to_dict()
    assert online["score"] == [50.0, 49.0, None]
    assert online["seen"][:2] == [[50, 51], [49, 50]]
    assert online["orders"] == [50, 49, None]
    assert online["mean"] == [50.0] * 3


def test_materialize_of_the_newest_rows_alone(store: FeatureStore) -> None:
    store.config.materialization_config.pull_latest_features = True
    store.materialize(at(0).to_pydatetime(), at(3600 * 50).to_pydatetime(), ["stats", "everyone"])
    online = store.get_online_features(["stats:score", "everyone:mean"], [{"user": 0}, {"user": 3}]).to_dict()
    assert online == {"user": [0, 3], "score": [50.0, 48.0], "mean": [50.0, 50.0]}


def test_plan_and_teardown(store: FeatureStore) -> None:
    diff, _, _ = store.plan(_contents())
    changes = {change.name: change.transition_type for change in diff.feast_object_diffs}
    for name in ("stats", "everyone", "orders", "extra", "all", "logged"):
        assert changes.get(name, TransitionType.UNCHANGED) == TransitionType.UNCHANGED
    store.teardown()
    assert (Path(store.repo_path) / "data" / "stats.parquet").exists()


def _contents() -> RepoContents:
    """The definitions as they stand in a repository's files."""
    user, stats, everyone, orders, extra, *services = objects()
    return RepoContents(
        data_sources=[view.batch_source for view in (stats, everyone, orders)],
        feature_views=[stats, everyone, orders],
        on_demand_feature_views=[extra],
        stream_feature_views=[],
        label_views=[],
        entities=[user],
        feature_services=services,
        permissions=[],
        projects=[],
    )


SAVED = {
    "file": SavedDatasetFileStorage("saved/train.parquet"),
    "folder": SavedDatasetFileStorage("saved/train"),
    "DuckDB table": SavedDatasetDuckDBStorage("saved.duckdb", "sets.train"),
}


@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.filterwarnings("ignore:.*experimental")
def test_saved_data_sets_come_back(store: FeatureStore, kind: str) -> None:
    """On-demand features are saved too, and nothing is overwritten unless it is asked for."""
    job = store.get_historical_features(ROWS, ["stats:score", "extra:total"], full_feature_names=True)
    saved = store.create_saved_dataset(job, "train", SAVED[kind], allow_overwrite=kind == "folder")
    again = store.get_saved_dataset("train").to_df()
    key = ["user", "event_timestamp"]
    want = job.to_df().sort_values(key, ignore_index=True)
    for frame in (saved.to_df(), again):
        frame = frame.sort_values(key, ignore_index=True)
        pd.testing.assert_frame_equal(
            frame[["user", "stats__score", "extra__total"]], want[["user", "stats__score", "extra__total"]]
        )

    half = store.get_historical_features(ROWS.head(25), ["stats:score"], full_feature_names=True)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(half, "train", SAVED[kind])
    store.create_saved_dataset(half, "train", SAVED[kind], allow_overwrite=True)
    assert len(store.get_saved_dataset("train").to_df()) == 25


def test_a_result_can_be_staged(store: FeatureStore) -> None:
    job = store.get_historical_features(ROWS, ["stats:score"])
    assert job.supports_remote_storage_export()
    files = job.to_remote_storage()
    assert pa.concat_tables([pq.read_table(file) for file in files]).equals(job.to_arrow())
    assert all(Path(file).is_relative_to(Path(store.repo_path) / "staged") for file in files)


def test_the_sql_can_be_read(store: FeatureStore) -> None:
    sql = store.get_historical_features(ROWS, ["stats:score"], full_feature_names=True).to_sql()
    with duckdb.connect() as con:
        assert len(con.extract_statements(sql)) == 5
    assert sql.count("ASOF LEFT JOIN") == 1
    assert '"stats__score"' in sql


@pytest.mark.parametrize("as_path", [True, False])
def test_logs_are_added(store: FeatureStore, tmp_path: Path, as_path: bool) -> None:
    service = store.get_feature_service("logged")
    for batch in range(2):
        known = {"user": 1, "stats__score": 2.5, "__log_timestamp": at(batch), "__log_date": at(0).date()}
        requests = [{**known, "__request_id": f"{batch}{row}"} for row in "ab"]
        logs = pa.Table.from_pylist(
            requests, FeatureServiceLoggingSource(service, "shop").get_schema(store.registry)
        )
        if as_path:
            pq.write_to_dataset(logs, tmp_path / f"logs{batch}")
        store.write_logged_features(tmp_path / f"logs{batch}" if as_path else logs, service)
    provider = store._get_provider()
    found = provider.retrieve_feature_service_logs(
        service, at(0), at(1), store.config, store.registry
    ).to_df()
    assert sorted(found["__request_id"]) == ["0a", "0b", "1a", "1b"]
    assert found["stats__score"].tolist() == [2.5] * 4


class TestWriting:
    """write_to_offline_store adds rows that the next retrieval sees; no file that was there changes."""

    def batch(self, hour: int, **columns: object) -> pd.DataFrame:
        frame = {"user": [0], "ts": [at(3600 * hour)], "created": [at(3600 * hour)], "score_raw": [-1.0]}
        return pd.DataFrame({**frame, "name": ["new"], "seen": [[1]], **columns})

    def rows(self, hour: int) -> pd.DataFrame:
        return pd.DataFrame({"user": [0], "event_timestamp": [at(3600 * hour)]})

    def files(self, store: FeatureStore) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (Path(store.repo_path) / "data").rglob("*.parquet")}

    def test_to_a_file_and_to_a_folder(self, store: FeatureStore) -> None:
        before = self.files(store)
        for hour in (200, 300):
            store.write_to_offline_store("stats", self.batch(hour))
            store.write_to_offline_store(
                "everyone", pd.DataFrame({"ts": [at(3600 * hour)], "mean": [hour * 1.0]})
            )
            found = store.get_historical_features(self.rows(hour), ["stats:score", "everyone:mean"]).to_df()
            assert found[["score", "mean"]].to_dict("records") == [{"score": -1.0, "mean": hour * 1.0}]
        after = self.files(store)
        assert {path: after[path] for path in before} == before
        assert len(after) == len(before) + 4
        store.materialize(at(0).to_pydatetime(), at(3600 * 300).to_pydatetime(), ["stats"])
        assert store.get_online_features(["stats:score"], [{"user": 0}]).to_dict()["score"] == [-1.0]

    def test_to_a_table(self, store: FeatureStore) -> None:
        store.write_to_offline_store(
            "orders", pd.DataFrame({"user": [0], "ts": [at(3600 * 200)], "orders": [7]})
        )
        assert store.get_historical_features(self.rows(200), ["orders:orders"]).to_df()[
            "orders"
        ].tolist() == [7]

    def test_columns_in_any_order(self, store: FeatureStore) -> None:
        batch = self.batch(200)
        store.write_to_offline_store("stats", batch[batch.columns[::-1]], reorder_columns=False)
        assert store.get_historical_features(self.rows(200), ["stats:name"]).to_df()["name"].tolist() == [
            "new"
        ]

    def test_columns_that_do_not_fit(self, store: FeatureStore) -> None:
        before = self.files(store)
        with pytest.raises(ValueError, match="missing_expected_columns"):
            store.write_to_offline_store("stats", self.batch(1).drop(columns="name"))
        assert self.files(store) == before


def test_dates_without_a_zone_mean_utc(store: FeatureStore) -> None:
    job = store.get_historical_features(
        None, ["stats:score"], start_date=datetime(2026, 1, 1, 3), end_date=datetime(2026, 1, 1, 5)
    )
    assert job.to_df()["score"].tolist() == [3.0, 4.0, 5.0]
