"""Small cases with the answer written down: what a feature row needs to be taken, and what Feast gets wrong."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource
from feast.infra.registry.registry import Registry
from feast.types import Float64, Int64, String
from stores import at, ours, parquet, view

MICROSECOND = 1e-6


def values(job) -> list[float | None]:
    return job.to_arrow()["x"].to_pylist()


def rows_at(*seconds: float, user: int = 1) -> pd.DataFrame:
    return pd.DataFrame({"user": user, "event_timestamp": [at(s) for s in seconds]})


def test_a_value_from_the_future_never_appears(tmp_path: Path, registry: Registry) -> None:
    """Marked values lie one microsecond after each entity row; of thousands none may get through."""
    numbers = np.random.default_rng(0)
    rows = pd.DataFrame({"user": numbers.integers(0, 50, 3000), "t": numbers.integers(0, 10**6, 3000)})
    rows = rows.drop_duplicates(ignore_index=True)
    past = pd.DataFrame({"user": rows["user"], "ts": [at(t) for t in rows["t"]], "x": rows["t"] * 1.0})
    future = pd.DataFrame({"user": rows["user"], "ts": [at(t + MICROSECOND) for t in rows["t"]], "x": -1.0})
    source = parquet(tmp_path / "s.parquet", pd.concat([future, past]).sample(frac=1, random_state=0))
    rows["event_timestamp"] = [at(t) for t in rows["t"]]

    # A row at exactly the time is known, and it is newer than any other that is.
    assert values(ours(rows, [view(source)], registry)) == (rows["t"] * 1.0).tolist()
    just_before = rows.assign(event_timestamp=[at(t - MICROSECOND) for t in rows["t"]])
    before = pd.Series(values(ours(just_before, [view(source)], registry)), dtype=float)
    assert (before.isna() | (before < rows["t"])).all()


@pytest.mark.parametrize("join_rows", [None, 3])
def test_both_ends_of_the_time_to_live_are_included(
    tmp_path: Path, registry: Registry, join_rows: int
) -> None:
    source = parquet(tmp_path / "s.parquet", {"user": [1], "ts": [at(0)], "x": [7.0]})
    rows = rows_at(-MICROSECOND, 0, 10, 10 + MICROSECOND)
    ten = view(source, ttl=timedelta(seconds=10))
    assert values(ours(rows, [ten], registry, join_rows=join_rows)) == [None, 7.0, 7.0, None]
    for forever in (None, timedelta(0)):
        assert values(ours(rows, [view(source, ttl=forever)], registry)) == [None, 7.0, 7.0, 7.0]


def test_an_expired_row_hides_the_older_ones_and_a_null_is_a_value(
    tmp_path: Path, registry: Registry
) -> None:
    source = parquet(tmp_path / "s.parquet", {"user": [1, 1], "ts": [at(0), at(5)], "x": [1.0, None]})
    assert values(ours(rows_at(4, 5, 6), [view(source)], registry)) == [1.0, None, None]


def test_the_latest_created_row_wins_a_tie_and_a_null_created_loses(
    tmp_path: Path, registry: Registry
) -> None:
    history = {
        "user": [1, 1, 1, 2, 2],
        "ts": [at(0)] * 5,
        "created": [at(1), at(3), at(2), None, at(1)],
        "x": [1.0, 3.0, 2.0, 4.0, 5.0],
    }
    source = parquet(tmp_path / "s.parquet", history, created_timestamp_column="created")
    rows = pd.DataFrame({"user": [1, 2], "event_timestamp": [at(9), at(9)]})
    assert values(ours(rows, [view(source)], registry)) == [3.0, 5.0]


def test_filter_by_created_sees_what_was_known_then(tmp_path: Path, registry: Registry) -> None:
    """A backfill for an old time, and a correction that came late: each counts from its created time on."""
    history = {
        "user": [1, 1, 1, 1],
        "ts": [at(0), at(10), at(5), at(10)],
        "created": [at(0), at(10), at(20), at(30)],
        "x": [0.0, 10.0, 5.0, 11.0],
    }
    source = parquet(tmp_path / "s.parquet", history, created_timestamp_column="created")
    rows = rows_at(9, 10, 20, 30 - MICROSECOND, 30)
    job = ours(rows, [view(source)], registry, filter_by_created_timestamp=True)
    assert values(job) == [0.0, 10.0, 10.0, 10.0, 11.0]
    assert values(ours(rows, [view(source)], registry)) == [5.0, 11.0, 11.0, 11.0, 11.0]


@pytest.mark.parametrize("threads", [1, 4])
def test_rows_that_no_time_tells_apart_end_the_same_way_always(
    tmp_path: Path, registry: Registry, threads: int
) -> None:
    """The last row of the source wins, whatever the threads do."""
    numbers = np.random.default_rng(1)
    history = pd.DataFrame({"user": numbers.integers(0, 300, 60_000), "x": np.arange(60_000.0)})
    history = history.assign(ts=at(0), created=at(1))
    rows = pd.DataFrame({"user": np.arange(300), "event_timestamp": at(2)})
    expected = history.groupby("user")["x"].max().tolist()
    for created in (None, "created"):
        source = parquet(tmp_path / "s.parquet", history, created_timestamp_column=created)
        assert values(ours(rows, [view(source)], registry, threads=threads)) == expected


def test_times_too_far_apart_for_one_integer_are_still_exact(tmp_path: Path, registry: Registry) -> None:
    """The years 1 and 9999 as created time leave no room to pack timestamps from 1700 on."""
    far = [pd.Timestamp("1700-01-01", tz="UTC"), at(0), at(0), at(0)]
    created = pa.array(
        [-62135596800000000, None, 253402300799999999, at(0).value // 1000], pa.timestamp("us", "UTC")
    )
    table = pa.table(
        {
            "user": [1] * 4,
            "ts": pa.array(far, pa.timestamp("us", "UTC")),
            "created": created,
            "x": [1.0, 2.0, 3.0, 4.0],
        }
    )
    pq.write_table(table, tmp_path / "s.parquet")
    source = FileSource(
        path=str(tmp_path / "s.parquet"), timestamp_field="ts", created_timestamp_column="created"
    )
    assert values(ours(rows_at(-1, 1), [view(source)], registry)) == [1.0, 3.0]
    job = ours(rows_at(-1, 1), [view(source)], registry, filter_by_created_timestamp=True)
    assert values(job) == [1.0, 4.0]


def test_the_order_and_number_of_entity_rows_are_kept(tmp_path: Path, registry: Registry) -> None:
    numbers = np.random.default_rng(2)
    source = parquet(
        tmp_path / "s.parquet", {"user": range(100), "ts": [at(0)] * 100, "x": numbers.random(100)}
    )
    rows = pd.DataFrame({"user": numbers.integers(0, 120, 20_000), "event_timestamp": at(1)})
    rows["n"] = np.arange(len(rows))
    for limits in ({}, {"fetch_rows": 3000, "join_rows": 5000}):
        result = ours(rows, [view(source)], registry, threads=4, **limits).to_df()
        assert result["n"].tolist() == rows["n"].tolist()
        assert result["user"].tolist() == rows["user"].tolist()


def test_little_memory_changes_nothing(tmp_path: Path, registry: Registry) -> None:
    """What does not fit spills to a folder that is empty again afterwards."""
    numbers = np.random.default_rng(3)
    history = {
        "user": numbers.integers(0, 20_000, 200_000),
        "ts": [at(t) for t in numbers.integers(0, 10**6, 200_000)],
        "x": numbers.random(200_000),
    }
    views = [view(parquet(tmp_path / "s.parquet", history), ttl=timedelta(days=2))]
    times = pd.to_timedelta(numbers.integers(0, 10**6, 200_000), unit="s")
    rows = pd.DataFrame({"user": numbers.integers(0, 20_000, 200_000), "event_timestamp": at(0) + times})
    plenty = ours(rows, views, registry).to_arrow()
    stream = ours(
        rows, views, registry, base=tmp_path, memory_limit="30MB", temp_directory="spill"
    ).to_arrow_batches()
    assert pa.Table.from_batches(stream).equals(plenty)
    assert not list(tmp_path.glob("spill/*"))


def test_a_view_without_entities_is_joined_on_time_alone(tmp_path: Path, registry: Registry) -> None:
    source = parquet(tmp_path / "s.parquet", {"ts": [at(0), at(10)], "x": [1.0, 2.0]})
    assert values(ours(rows_at(-1, 5, 10), [view(source, keys={})], registry)) == [None, 1.0, 2.0]


def test_nanoseconds_are_read_as_microseconds(tmp_path: Path, registry: Registry) -> None:
    times = pa.array([at(0).value, at(1).value], pa.timestamp("ns", "UTC"))
    seen = pa.array([[at(0).value], [at(1).value]], pa.list_(pa.timestamp("ns")))
    pq.write_table(
        pa.table({"user": [1, 1], "ts": times, "x": [1.0, 2.0], "seen": seen}), tmp_path / "s.parquet"
    )
    source = FileSource(path=str(tmp_path / "s.parquet"), timestamp_field="ts")
    rows = rows_at(0, 1).astype({"event_timestamp": "datetime64[ns, UTC]"})
    table = ours(rows, [view(source, features={"x": Float64, "seen": String})], registry).to_arrow()
    assert table["x"].to_pylist() == [1.0, 2.0]
    assert table.schema.field("event_timestamp").type == pa.timestamp("us", "UTC")
    assert table.schema.field("seen").type.value_type == pa.timestamp("us")


def test_keys_of_other_widths_join_and_strings_do_too(tmp_path: Path, registry: Registry) -> None:
    history = pd.DataFrame({"user": [1, 2], "name": ["ann", "bob"], "ts": at(0), "x": [1.0, 2.0]})
    source = parquet(tmp_path / "s.parquet", history.astype({"user": "int16"}))
    by_name = view(source, keys={"name": String}, name="by_name")
    rows = pd.DataFrame({"user": [2, 1], "name": pd.Categorical(["ann", "bob"]), "event_timestamp": at(1)})
    result = ours(rows, [view(source), by_name], registry, full_feature_names=True).to_df()
    assert result["stats__x"].tolist() == [2.0, 1.0]
    assert result["by_name__x"].tolist() == [1.0, 2.0]


def test_no_rows_give_no_rows_with_all_columns(tmp_path: Path, registry: Registry) -> None:
    source = parquet(tmp_path / "s.parquet", {"user": [1], "ts": [at(0)], "x": [1.0]})
    job = ours(rows_at(0).head(0), [view(source)], registry)
    assert job.to_arrow().column_names == ["user", "event_timestamp", "x"]
    assert list(job.to_arrow_batches()) == []
    empty = pd.DataFrame({"user": [1], "ts": [at(0)], "x": [1.0]}).head(0)
    assert values(ours(rows_at(0), [view(parquet(tmp_path / "e.parquet", empty))], registry)) == [None]


class TestWithoutEntityRows:
    """Every (timestamp, keys) that the views hold in the period, each with what was known at that time."""

    def test_one_view(self, tmp_path: Path, registry: Registry) -> None:
        history = {"user": [1, 1, 2, 1], "ts": [at(0), at(1), at(1), at(5)], "x": [0.0, 1.0, 2.0, 5.0]}
        source = parquet(tmp_path / "s.parquet", history)
        job = ours(
            None, [view(source)], registry, start_date=at(1), end_date=at(5) - timedelta(microseconds=1)
        )
        assert job.to_arrow().to_pylist() == [
            {"event_timestamp": at(1), "user": 1, "x": 1.0},
            {"event_timestamp": at(1), "user": 2, "x": 2.0},
        ]
        assert (job.metadata.min_event_timestamp, job.metadata.keys) == (at(1), ["user"])

    def test_two_views_see_each_others_past(self, tmp_path: Path, registry: Registry) -> None:
        a = parquet(tmp_path / "a.parquet", {"user": [1, 1], "ts": [at(-9), at(3)], "x": [1.0, 2.0]})
        b = parquet(tmp_path / "b.parquet", {"user": [1], "item": [5], "ts": [at(2)], "y": [7.0]})
        views = [view(a, name="a"), view(b, {"user": Int64, "item": Int64}, {"y": Float64}, name="b")]
        table = ours(None, views, registry, start_date=at(0), end_date=at(9)).to_arrow()
        assert table.select(["user", "item", "x", "y"]).to_pylist() == [
            {"user": 1, "item": 5, "x": 1.0, "y": 7.0},
            {"user": 1, "item": None, "x": 2.0, "y": None},
        ]
