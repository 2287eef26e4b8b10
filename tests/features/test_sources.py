"""Where feature rows lie: files, folders, partitions, globs, DuckDB files; and names that look like SQL."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource
from feast.data_format import DeltaFormat, ParquetFormat
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.registry.registry import Registry
from feast.types import Float64, Int64, String
from stores import at, ours, parquet, repo_config, view

from mtl_rank.errors import ConfigError, DataError
from mtl_rank.features.duckdb_source import DuckDBSource, SavedDatasetDuckDBStorage
from mtl_rank.features.offline_store import DuckDBAsofOfflineStore, DuckDBAsofOfflineStoreConfig

HISTORY = pd.DataFrame(
    {"user": [1, 1, 2, 2], "ts": [at(t) for t in (0, 10, 0, 10)], "x": [1.0, 2.0, 3.0, 4.0]}
)
ROWS = pd.DataFrame({"user": [2, 1, 2, 1], "event_timestamp": [at(t) for t in (5, 15, 15, 5)]})
EXPECTED = [3.0, 2.0, 4.0, 1.0]


def source(path: str, **options: Any) -> FileSource:
    return FileSource(name="stats", path=path, file_format=ParquetFormat(), timestamp_field="ts", **options)


def one_file(repo: Path) -> DataSource:
    HISTORY.to_parquet(repo / "stats.parquet")
    return source("stats.parquet")


def folder(repo: Path) -> DataSource:
    (repo / "stats" / "deep").mkdir(parents=True)
    HISTORY.iloc[1:3].to_parquet(repo / "stats" / "b.parquet")
    HISTORY.iloc[[0, 3]].to_parquet(repo / "stats" / "deep" / "a.parquet")
    (repo / "stats" / "_SUCCESS").write_text("")
    return source("stats")


def files_with_other_columns(repo: Path) -> DataSource:
    """The second file came when a column had been added, and the columns are in another order."""
    (repo / "stats").mkdir()
    HISTORY.iloc[:2].to_parquet(repo / "stats" / "a.parquet")
    HISTORY.iloc[2:].assign(new="n")[["x", "new", "ts", "user"]].to_parquet(repo / "stats" / "b.parquet")
    return source("stats")


def hive(repo: Path) -> DataSource:
    """The key is in the names of the folders alone."""
    pq.write_to_dataset(pa.Table.from_pandas(HISTORY), repo / "stats", partition_cols=["user"])
    return source("stats")


def below_a_folder_that_only_looks_partitioned(repo: Path) -> DataSource:
    (repo / "user=9").mkdir()
    HISTORY.to_parquet(repo / "user=9" / "stats.parquet")
    return source("user=9/stats.parquet")


def glob_of_files(repo: Path) -> DataSource:
    folder(repo)
    HISTORY.assign(x=-1.0).to_parquet(repo / "stats" / "b.parquet.bak")
    return source("stats/**/*.parquet")


def name_with_wildcards(repo: Path) -> DataSource:
    HISTORY.to_parquet(repo / "stats [1]*?.parquet")
    HISTORY.assign(x=-1.0).to_parquet(repo / "stats 1.parquet")
    return source("stats [1]*?.parquet")


def name_with_quotes(repo: Path) -> DataSource:
    HISTORY.to_parquet(repo / "it's \"'); DROP TABLE x; --.parquet")
    return source("it's \"'); DROP TABLE x; --.parquet")


def duckdb_table(repo: Path) -> DataSource:
    with duckdb.connect(str(repo / "shop.duckdb")) as con:
        con.register("history", HISTORY)
        con.execute("CREATE SCHEMA s; CREATE TABLE s.stats AS SELECT * FROM history")
        # Positions in a table with deleted rows are not 0, 1, 2, ...
        con.execute("INSERT INTO s.stats SELECT 7, ts, -1 FROM history, range(2000)")
        con.execute("DELETE FROM s.stats WHERE user = 7")
        con.execute("INSERT INTO s.stats SELECT user, ts - INTERVAL 1 YEAR, -2 FROM history")
    return DuckDBSource(path="shop.duckdb", table="s.stats", timestamp_field="ts")


def duckdb_view(repo: Path) -> DataSource:
    duckdb_table(repo)
    with duckdb.connect(str(repo / "shop.duckdb")) as con:
        con.execute("CREATE VIEW stats AS FROM s.stats")
    return DuckDBSource(path="shop.duckdb", table="stats", timestamp_field="ts")


def duckdb_query(repo: Path) -> DataSource:
    duckdb_table(repo)
    query = "SELECT user, ts, sum(x) AS x FROM s.stats GROUP BY ALL -- nothing; more"
    return DuckDBSource(name="stats", path="shop.duckdb", query=query, timestamp_field="ts")


KINDS = [
    one_file,
    folder,
    files_with_other_columns,
    hive,
    below_a_folder_that_only_looks_partitioned,
    glob_of_files,
    name_with_wildcards,
    name_with_quotes,
    duckdb_table,
    duckdb_view,
    duckdb_query,
]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that is not the current folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "repo").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "repo"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("join_rows", [None, 3])
def test_every_kind_gives_the_same(kind: Any, join_rows: int | None, repo: Path, registry: Registry) -> None:
    stats = kind(repo)
    views = [view(stats), view(stats, ttl=timedelta(seconds=6), name="short")]
    table = ours(ROWS, views, registry, base=repo, full_feature_names=True, join_rows=join_rows).to_arrow()
    assert table["stats__x"].to_pylist() == EXPECTED
    assert table["short__x"].to_pylist() == EXPECTED
    assert table["user"].to_pylist() == ROWS["user"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_columns_and_types_are_found(kind: Any, repo: Path) -> None:
    config = repo_config(repo, DuckDBAsofOfflineStoreConfig())
    types = dict(
        DuckDBAsofOfflineStore().get_table_column_names_and_types_from_data_source(config, kind(repo))
    )
    assert types["x"] == "double"
    assert types["ts"].startswith("timestamp[us")
    assert types["user"] in ("int64", "int32")


def test_lists_are_spelled_as_feast_spells_them(repo: Path) -> None:
    table = pa.table({"l": pa.array([[1]], pa.list_(pa.int32())), "n": pa.array([[["a"]]]), "ts": [at(0)]})
    pq.write_table(table, repo / "stats.parquet")
    config = repo_config(repo, DuckDBAsofOfflineStoreConfig())
    found = DuckDBAsofOfflineStore().get_table_column_names_and_types_from_data_source(
        config, source("stats.parquet")
    )
    assert dict(found)["l"] == "list<item: int32>"
    assert dict(found)["n"] == "list<item: list<item: string>>"


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_between_two_times(kind: Any, newest: bool, repo: Path) -> None:
    """Both ends are included."""
    columns = {"join_key_columns": ["user"], "feature_name_columns": ["x"], "timestamp_field": "ts"}
    pull = (
        DuckDBAsofOfflineStore.pull_latest_from_table_or_query
        if newest
        else DuckDBAsofOfflineStore.pull_all_from_table_or_query
    )
    job = pull(
        config=repo_config(repo, DuckDBAsofOfflineStoreConfig()),
        data_source=kind(repo),
        **columns,
        created_timestamp_column=None,
        start_date=at(0),
        end_date=at(10),
    )
    found = job.to_arrow()
    assert found.column_names == ["user", "x", "ts"]
    assert sorted(found["x"].to_pylist()) == ([2.0, 4.0] if newest else [1.0, 2.0, 3.0, 4.0])
    batches = pa.Table.from_batches(job.to_arrow_batches(1))
    assert batches.sort_by("x").equals(found.sort_by("x"))


def test_a_file_replaced_while_it_is_read_is_no_source_of_other_rows(repo: Path, registry: Registry) -> None:
    """Rows are fetched by their position, which in another file is another row's."""
    path = repo / "stats.parquet"
    users = list(range(3_000))
    made = view(parquet(path, {"user": users, "ts": [at(0)] * 3_000, "x": [float(user) for user in users]}))
    rows = pd.DataFrame({"user": users, "event_timestamp": [at(1)] * 3_000})
    batches = ours(rows, [made], registry, repo, fetch_rows=100).to_arrow_batches(100)
    first = next(batches)
    assert first["x"].to_pylist() == first["user"].to_pylist()
    pd.read_parquet(path).iloc[::-1].to_parquet(repo / "new.parquet")
    (repo / "new.parquet").replace(path)
    with pytest.raises(DataError, match=r"stats\.parquet changed while it was read"):
        assert all(batch["x"].to_pylist() == batch["user"].to_pylist() for batch in batches)


ODD = [
    'a "b"',
    "select",
    "naïve — 名前",
    "x; DROP TABLE rows; --",
    "'); SELECT 1 --",
    "v0",
    "r",
    "t",
    "id",
    "rank",
    "row 0",
    "s",
    "m",
]


@pytest.mark.parametrize("odd", ODD)
def test_names_are_never_sql(odd: str, tmp_path: Path, registry: Registry) -> None:
    """A view, a key, a feature, a timestamp and a column of the entity rows of any name, also one that we use."""
    key, feature, other = f"{odd} key", f"{odd} feature", odd
    history = HISTORY.rename(columns={"user": key, "x": feature, "ts": f"{odd} ts"})
    history[other] = history[feature] * 10
    stats = FileSource(
        name=odd, path=str(_write(history, tmp_path / "stats.parquet")), timestamp_field=f"{odd} ts"
    )
    views = [view(stats, {key: Int64}, {feature: Float64, other: Float64}, name=odd)]
    rows = ROWS.rename(columns={"user": key}).assign(**{f"{odd} label": range(4)})
    for full in (True, False):
        table = ours(rows, views, registry, full_feature_names=full).to_arrow()
        prefix = f"{odd}__" if full else ""
        assert table.column_names == [*rows, f"{prefix}{feature}", f"{prefix}{other}"]
        assert table[f"{prefix}{feature}"].to_pylist() == EXPECTED
        assert table[f"{prefix}{other}"].to_pylist() == [value * 10 for value in EXPECTED]


def test_values_are_never_sql(tmp_path: Path, registry: Registry) -> None:
    keys = ["'; DROP TABLE rows; --", '"', "$source_0", "?"]
    history = pd.DataFrame({"user": keys, "ts": at(0), "x": range(4)})
    stats = view(parquet(tmp_path / "stats.parquet", history), {"user": String})
    rows = pd.DataFrame({"user": keys[::-1], "event_timestamp": at(1)})
    assert ours(rows, [stats], registry).to_arrow()["x"].to_pylist() == [3, 2, 1, 0]


def _write(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_parquet(path)
    return path


class TestDuckDBSource:
    def test_it_survives_the_registry(self) -> None:
        options = {
            "timestamp_field": "ts",
            "created_timestamp_column": "created",
            "field_mapping": {"a": "b"},
            "description": "d",
            "tags": {"k": "v"},
            "owner": "o",
        }
        for made in (
            DuckDBSource(path="shop.duckdb", table="s.stats", **options),
            DuckDBSource(path="shop.duckdb", query="SELECT 'it''s'", name="q", **options),
        ):
            again = DataSource.from_proto(made.to_proto())
            assert again == made
            assert hash(again) == hash(made)
            assert (again.path, again.table, again.query) == (made.path, made.table, made.query)

    def test_its_name_is_that_of_the_table(self) -> None:
        assert DuckDBSource(path="shop.duckdb", table="s.stats").name == "s.stats"

    def test_other_places_are_other_sources(self) -> None:
        stats = DuckDBSource(path="shop.duckdb", table="stats")
        assert stats != DuckDBSource(path="other.duckdb", table="stats")
        assert stats != DuckDBSource(path="shop.duckdb", query="FROM stats", name="stats")
        assert stats != FileSource(name="stats", path="shop.duckdb")

    @pytest.mark.parametrize(
        "options",
        [{}, {"table": "t", "query": "FROM t"}, {"query": "FROM t"}],
        ids=["neither", "both", "no name"],
    )
    def test_what_it_needs(self, options: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match=r"shop\.duckdb"):
            DuckDBSource(path="shop.duckdb", **options)

    def test_two_views_and_the_rows_of_one_file(self, repo: Path, registry: Registry) -> None:
        """The file is attached once for each, and is free again afterwards."""
        stats = duckdb_table(repo)
        with duckdb.connect(str(repo / "shop.duckdb")) as con:
            con.register("rows", ROWS)
            con.execute("CREATE TABLE impressions AS FROM rows")
        views = [view(stats), view(stats, name="again")]
        job = ours("shop.duckdb:impressions", views, registry, base=repo, full_feature_names=True)
        assert job.to_arrow()["again__x"].to_pylist() == EXPECTED
        with duckdb.connect(str(repo / "shop.duckdb")) as con:
            con.execute("DROP TABLE impressions")

    def test_a_result_is_saved_in_the_file_that_it_was_read_from(
        self, repo: Path, registry: Registry
    ) -> None:
        stats = duckdb_table(repo)
        job = ours(ROWS, [view(stats)], registry, base=repo)
        saved = SavedDatasetDuckDBStorage("shop.duckdb", "saved.rows")
        job.persist(saved)
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            job.persist(saved)
        job.persist(saved, allow_overwrite=True)
        with duckdb.connect(str(repo / "shop.duckdb"), read_only=True) as con:
            found = con.sql("FROM saved.rows").to_arrow_table()
        assert found["x"].to_pylist() == EXPECTED
        assert found.column_names == job.to_arrow().column_names


def test_delta_tables(repo: Path, registry: Registry) -> None:
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(str(repo / "stats"), pa.Table.from_pandas(HISTORY.iloc[:3]))
    stats = view(FileSource(name="stats", path="stats", file_format=DeltaFormat(), timestamp_field="ts"))
    config = repo_config(repo, DuckDBAsofOfflineStoreConfig())
    rest = pa.Table.from_pandas(HISTORY.iloc[3:], preserve_index=False)
    DuckDBAsofOfflineStore.offline_write_batch(config, stats, rest, None)
    job = ours(ROWS, [stats], registry, base=repo)
    assert job.to_arrow()["x"].to_pylist() == EXPECTED
    saved = SavedDatasetFileStorage("saved", file_format=DeltaFormat())
    job.persist(saved)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(saved)
    job.persist(saved, allow_overwrite=True)
    assert deltalake.DeltaTable(str(repo / "saved")).to_pyarrow_table()["x"].to_pylist() == EXPECTED


class TestAppending:
    """Where a new file goes, and that it is found there."""

    def append(self, stats: DataSource, repo: Path) -> None:
        new = HISTORY.iloc[:1].assign(ts=at(100), x=100.0)
        config = repo_config(repo, DuckDBAsofOfflineStoreConfig())
        done: list[int] = []
        DuckDBAsofOfflineStore.offline_write_batch(
            config, view(stats), pa.Table.from_pandas(new, preserve_index=False), done.append
        )
        assert done == [1]

    @pytest.mark.parametrize(
        "kind", [one_file, folder, hive, glob_of_files, name_with_wildcards, duckdb_table]
    )
    def test_new_rows_are_found(self, kind: Any, repo: Path, registry: Registry) -> None:
        stats = kind(repo)
        before = {path: path.read_bytes() for path in repo.rglob("*.parquet")}
        self.append(stats, repo)
        self.append(stats, repo)
        rows = pd.concat([ROWS, pd.DataFrame({"user": [1], "event_timestamp": [at(100)]})])
        assert ours(rows, [view(stats)], registry, base=repo).to_arrow()["x"].to_pylist() == [
            *EXPECTED,
            100.0,
        ]
        assert {path: path.read_bytes() for path in before} == before

    def test_partitions_get_the_rows_that_belong_to_them(self, repo: Path) -> None:
        self.append(hive(repo), repo)
        assert sorted(len(list(each.glob("*.parquet"))) for each in (repo / "stats").iterdir()) == [1, 2]

    def test_a_half_written_file_is_never_read(self, repo: Path, registry: Registry) -> None:
        stats = folder(repo)
        (repo / "stats" / "c.parquet.partial").write_bytes(b"half")
        assert ours(ROWS, [view(stats)], registry, base=repo).to_arrow()["x"].to_pylist() == EXPECTED
