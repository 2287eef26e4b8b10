"""The same feature rows in every kind of place."""

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from stores import at

from mtl_rank.features.duckdb_source import DuckDBSource

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
