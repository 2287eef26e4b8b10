"""What prepared data depends on: whatever changes the features changes their state, or there is no state at all."""

import shutil
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64
from stores import OURS, at, parquet

from mtl_rank.errors import DataError
from mtl_rank.features.duckdb_source import DuckDBSource
from mtl_rank.features.parquet import parquet_files
from mtl_rank.features.repository import FeatureRepository, open_repository
from mtl_rank.features.state import source_state

USER = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)


def applied(folder: Path, *features: object, source: FileSource | DuckDBSource) -> FeatureRepository:
    """A repository with a view `stats` of the source, and the service that `features` make of it."""
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(
        f"project: shop\nprovider: local\nregistry: registry.db\nonline_store: {{type: sqlite, path: online.db}}\n"
        f"offline_store: {{type: {OURS}}}\nentity_key_serialization_version: 3\n"
    )
    stats = FeatureView(
        name="stats",
        entities=[USER],
        schema=[Field(name="x", dtype=Float64)],
        source=source,
        ttl=timedelta(days=9),
    )
    views = [make(stats) for make in features] or [stats]
    FeatureStore(str(folder)).apply([USER, stats, FeatureService(name="service", features=views)])
    return open_repository(folder, "service", {})


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    return parquet(tmp_path / "stats.parquet", {"user": [1, 2], "ts": [at(0), at(0)], "x": [1.0, 2.0]})


def test_keys_that_change_places_are_a_change(tmp_path: Path, source: FileSource) -> None:
    def service(of_buyer: str, of_seller: str) -> FeatureRepository:
        return applied(
            tmp_path / "repository",
            lambda stats: stats.with_name("buyer").with_join_key_map({"user": of_buyer}),
            lambda stats: stats.with_name("seller").with_join_key_map({"user": of_seller}),
            source=source,
        )

    first = source_state(service("buyer_id", "seller_id"))
    assert first is not None
    assert source_state(service("buyer_id", "seller_id")) == first
    assert source_state(service("seller_id", "buyer_id")) != first


TABLES = {
    "table": {"table": "stats"},
    "view over a table": {"table": "recent"},
    "query over tables": {
        "query": "SELECT * FROM stats JOIN (SELECT DISTINCT user FROM recent) USING (user)"
    },
}
ELSEWHERE = {
    "view over a file": {"table": "outside"},
    "query over a file": {"query": "SELECT * FROM 'FILE'"},
    "query over both": {"query": "SELECT * FROM stats UNION ALL SELECT * FROM outside"},
    "query that needs no row of the file": {
        "query": "SELECT s.* FROM stats s, (SELECT count(*) FROM 'FILE')"
    },
}


@pytest.mark.parametrize("case", [*TABLES, *ELSEWHERE])
def test_what_a_duckdb_source_reads_beside_its_file_cannot_be_seen(tmp_path: Path, case: str) -> None:
    file = tmp_path / "stats.parquet"
    columns = pd.DataFrame({"user": [1], "ts": [at(0)], "x": [1.0]})
    columns.to_parquet(file)
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as con:
        con.execute("CREATE TABLE stats AS FROM columns")
        con.execute("CREATE VIEW recent AS FROM stats WHERE x > 0")
        con.execute(f"CREATE VIEW outside AS FROM '{file}'")
    chosen = {key: sql.replace("FILE", str(file)) for key, sql in (TABLES | ELSEWHERE)[case].items()}
    source = DuckDBSource(name="stats", path=str(tmp_path / "shop.duckdb"), timestamp_field="ts", **chosen)
    state = source_state(applied(tmp_path / "repository", source=source))
    assert (state is not None) == (case in TABLES)


def test_folders_that_vanish_while_they_are_looked_at_are_told_or_passed_over(tmp_path: Path) -> None:
    days = [tmp_path / "stats" / f"day={number}" for number in range(40)]
    for day in days:
        day.mkdir(parents=True)
        (day / "x.parquet").touch()
    source = FileSource(path=str(tmp_path / "stats"), timestamp_field="ts")
    repository = applied(tmp_path / "repository", source=source)
    done = threading.Event()

    def make_anew() -> None:
        while not done.is_set():
            for day in days:
                shutil.rmtree(day)
                day.mkdir()
                (day / "x.parquet").touch()

    maker = threading.Thread(target=make_anew)
    maker.start()
    try:
        for _ in range(100):
            assert source_state(repository)
            with suppress(DataError):
                parquet_files(source.path, tmp_path, "stats")
    finally:
        done.set()
        maker.join()
