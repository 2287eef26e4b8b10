"""Where feature rows lie: files, folders, partitions, globs, DuckDB files; and names that look like SQL."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.registry.registry import Registry
from feast.types import Float64, Int64, String
from source_kinds import (
    EXPECTED,
    HISTORY,
    KINDS,
    ROWS,
    duckdb_table,
    folder,
    glob_of_files,
    hive,
    name_with_wildcards,
    one_file,
    source,
)
from stores import at, ours, parquet, repo_config, view

from mtl_rank.errors import DataError
from mtl_rank.features.offline_store import DuckDBAsofOfflineStore, DuckDBAsofOfflineStoreConfig


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
