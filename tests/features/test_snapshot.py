"""Entity rows as one fixed input: the same rows give the same digest, at the time that counts, with exact ids."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mtl_rank.errors import DataError
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, Snapshot, snapshot_rows

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)


def snapshot(rows: object, folder: Path, *columns: str, as_of: datetime | None = None) -> Snapshot:
    return snapshot_rows(rows, folder, columns, folder / "rows_of_it.parquet", as_of=as_of)


def test_a_query_is_the_same_input_each_time(tmp_path: Path) -> None:
    query = "SELECT DISTINCT (i * 7919) % 700_000 AS item FROM range(1_500_000) AS t(i)"
    found = {snapshot(query, tmp_path, "item", as_of=NOON).digest for _ in range(3)}
    assert len(found) == 1


def test_a_query_that_keeps_the_order_of_a_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    items = [(7919 * i) % 400_009 for i in range(400_000)]
    pd.DataFrame({"item": items}).to_parquet(path, row_group_size=20_000)
    query = "SELECT item + 1 AS item FROM 'items.parquet' WHERE item % 3 > 0"
    found = snapshot(query, tmp_path, "item", as_of=NOON)
    assert pq.read_table(found.path)["item"].to_pylist() == [item + 1 for item in items if item % 3]


def test_as_of_is_the_time_of_every_row_also_where_a_feature_reads_it(tmp_path: Path) -> None:
    rows = pd.DataFrame({"user": [1, 2], EVENT_TIMESTAMP: pd.to_datetime(["2026-03-01", "2026-03-02"])})
    for given in (rows, rows.drop(columns=EVENT_TIMESTAMP)):
        found = snapshot(given, tmp_path, "user", EVENT_TIMESTAMP, as_of=NOON)
        assert (found.first, found.last) == (NOON, NOON)
        assert pq.read_table(found.path)[EVENT_TIMESTAMP].to_pylist() == [NOON, NOON]
        assert set(found.columns) == {"user", EVENT_TIMESTAMP, "mtlrank_row"}
    own = snapshot(rows, tmp_path, "user", EVENT_TIMESTAMP)
    assert own.first == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("time", ["'infinity'::TIMESTAMP", "make_timestamp(1_700_000_000_000_000_000)"])
def test_times_that_can_be_none_are_refused(tmp_path: Path, time: str) -> None:
    query = f"SELECT 1 AS user, {time} AS event_timestamp UNION ALL SELECT 2, TIMESTAMP '2026-03-01'"
    with pytest.raises(DataError, match="event_timestamp of 1 of 2 rows is not between the years 1 and 9999"):
        snapshot(query, tmp_path, "user")


def test_integers_of_128_bits_stay_what_they_are_or_are_refused(tmp_path: Path) -> None:
    found = snapshot(
        "SELECT sum(i) AS user FROM (VALUES (9007199254740993)) AS t(i)", tmp_path, "user", as_of=NOON
    )
    assert pq.read_table(found.path)["user"].to_pylist() == [9007199254740993]
    with pytest.raises(DataError, match="INT64"):
        snapshot(
            "SELECT 2::HUGEINT ** 70 AS user, 170141183460469231731687303715884105727 AS n",
            tmp_path,
            "n",
            as_of=NOON,
        )
