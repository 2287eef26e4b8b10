"""Entity rows in every form give the same features; what cannot be read says so."""

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import FeatureView
from feast.infra.registry.registry import Registry
from stores import at, ours, parquet, view

from mtl_rank.errors import DataError


@pytest.fixture
def stats(tmp_path: Path) -> FeatureView:
    history = {"user": [1, 1, 2], "ts": [at(0), at(10), at(5)], "x": [1.0, 2.0, 3.0]}
    return view(parquet(tmp_path / "stats.parquet", history))


ROWS = pd.DataFrame(
    {"user": [2, 1, 1, 3], "event_timestamp": [at(7), at(12), at(3), at(9)], "label": [0, 1, 0, 1]}
)
EXPECTED = [3.0, 2.0, 1.0, None]

FORMS = {
    "pandas": lambda folder: ROWS,
    "polars": lambda folder: pl.from_pandas(ROWS),
    "polars lazy": lambda folder: pl.from_pandas(ROWS).lazy(),
    "arrow": lambda folder: pa.Table.from_pandas(ROWS),
    "file": lambda folder: "rows.parquet",
    "absolute file": lambda folder: str(folder / "rows.parquet"),
    "folder": lambda folder: "parts",
    "glob": lambda folder: "parts/*.parquet",
    "query": lambda folder: "SELECT * FROM 'rows.parquet' -- all of them",
    "query with a semicolon": lambda folder: "FROM read_parquet('parts/*.parquet');\n",
    "table of a DuckDB file": lambda folder: "shop.duckdb:impressions",
    "table of a DuckDB file with a space": lambda folder: "my shop.duckdb:impressions",
    "table of another schema": lambda folder: f"{folder}/shop.duckdb:raw.impressions",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with the rows in every kind of place, and a current folder elsewhere."""
    (tmp_path / "parts").mkdir()
    ROWS.to_parquet(tmp_path / "rows.parquet")
    ROWS.iloc[:2].to_parquet(tmp_path / "parts" / "a.parquet")
    ROWS.iloc[2:].to_parquet(tmp_path / "parts" / "b.parquet")
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as con:
        con.register("rows", ROWS)
        con.execute("CREATE SCHEMA raw")
        con.execute("CREATE TABLE impressions AS FROM rows")
        con.execute("CREATE VIEW raw.impressions AS FROM main.impressions")
    shutil.copy(tmp_path / "shop.duckdb", tmp_path / "my shop.duckdb")
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(form: str, folder: Path, stats: FeatureView, registry: Registry) -> None:
    job = ours(FORMS[form](folder), [stats], registry, base=folder)
    table = job.to_arrow()
    assert table["x"].to_pylist() == EXPECTED
    assert table.column_names == ["user", "event_timestamp", "label", "x"]
    assert table["label"].to_pylist() == ROWS["label"].tolist()
    assert table.schema.field("event_timestamp").type == pa.timestamp("us", "UTC")
    assert (job.metadata.min_event_timestamp, job.metadata.max_event_timestamp) == (at(3), at(12))
    assert job.metadata.keys == ["user", "label"]


def test_a_query_runs_once_so_a_sample_stays_one_sample(stats: FeatureView, registry: Registry) -> None:
    """The rows that are matched are the rows that are given back."""
    time = "TIMESTAMPTZ '2026-01-01 00:00:12+00'"
    query = f"SELECT (random() * 2)::BIGINT + 1 AS user, {time} AS event_timestamp FROM range(2000)"
    table = ours(query, [stats], registry).to_arrow().to_pandas()
    assert set(zip(table["user"], table["x"].fillna(0), strict=True)) == {(1, 2.0), (2, 3.0), (3, 0.0)}


@pytest.mark.parametrize(
    "times",
    [
        pd.Series(["2026-01-01 00:00:07", "2026-01-01T00:00:12", "2026-01-01 00:00:03", None]),
        pd.Series(["2026-01-01 01:00:07+01:00", "2025-12-31T19:00:12-05:00", "2026-01-01 00:00:03Z", None]),
        pd.Series(
            [at(7).to_pydatetime(), at(12).tz_convert("Asia/Tokyo").to_pydatetime(), at(3), None],
            dtype=object,
        ),
        pd.Series([at(7), at(12), at(3), None]).dt.tz_convert("America/New_York"),
        pd.Series([at(7), at(12), at(3), None]).dt.tz_localize(None),
    ],
    ids=["text without zone", "text with zones", "objects", "another zone", "without zone"],
)
@pytest.mark.parametrize("as_arrow", [False, True])
def test_times_of_every_kind(
    times: pd.Series, as_arrow: bool, stats: FeatureView, registry: Registry
) -> None:
    """A time without a zone means UTC; a null time gives null features."""
    rows: Any = pd.DataFrame({"user": [2, 1, 1, 1], "event_timestamp": times})
    if as_arrow:
        rows = pa.Table.from_pandas(rows)
    table = ours(rows, [stats], registry).to_arrow()
    assert table["x"].to_pylist() == [3.0, 2.0, 1.0, None]
    assert table["event_timestamp"].to_pylist() == [at(7), at(12), at(3), None]


def test_a_day_means_its_midnight(stats: FeatureView, registry: Registry) -> None:
    rows = pa.table({"user": [1], "event_timestamp": pa.array([at(86400).date()], pa.date32())})
    assert ours(rows, [stats], registry).to_arrow()["event_timestamp"].to_pylist() == [at(86400)]


def test_the_only_timestamp_is_the_event_timestamp(stats: FeatureView, registry: Registry) -> None:
    table = ours(ROWS.rename(columns={"event_timestamp": "seen at"}), [stats], registry).to_arrow()
    assert table["x"].to_pylist() == EXPECTED
    assert table.schema.field("seen at").type == pa.timestamp("us", "UTC")


def test_the_rows_given_are_not_changed(stats: FeatureView, registry: Registry) -> None:
    rows = ROWS.assign(event_timestamp=ROWS["event_timestamp"].astype(str))
    before = rows.copy()
    ours(rows, [stats], registry).to_df()
    pd.testing.assert_frame_equal(rows, before)


def test_a_view_runs_once_so_each_row_gets_its_own_features(tmp_path: Path, registry: Registry) -> None:
    """On two threads the groups of a view come in another order each time."""
    count = 300_000
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as con:
        con.execute(
            f"CREATE TABLE log AS SELECT i % {count} AS user, $time AS event_timestamp FROM range({2 * count}) AS t(i)",
            {"time": at(5)},
        )
        con.execute(
            "CREATE VIEW last AS SELECT user, max(event_timestamp) AS event_timestamp FROM log GROUP BY user"
        )
    users = range(count)
    source = parquet(
        tmp_path / "stats.parquet", {"user": users, "ts": [at(0)] * count, "x": map(float, users)}
    )
    found = ours("shop.duckdb:last", [view(source)], registry, tmp_path, threads=2).to_arrow()
    assert found.num_rows == count
    assert found["user"].cast(pa.float64()).equals(found["x"])


def test_names_that_differ_in_case_alone_are_told(stats: FeatureView, registry: Registry) -> None:
    rows = pl.DataFrame({"user": [1], "USER": [2], "event_timestamp": [at(5).to_pydatetime()]})
    with pytest.raises(DataError, match="two columns are named 'user'"):
        ours(rows, [stats], registry)
