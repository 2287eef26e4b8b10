"""The rows to score on their way to a file of their own."""

from datetime import UTC, datetime

import polars as pl
import pytest

from mtl_rank.errors import DataError
from mtl_rank.scoring.candidates import CandidateRules, snapshot_list

ROWS = pl.DataFrame({"user_id": [2, 1, 2], "event_timestamp": [datetime(2026, 3, 31, tzinfo=UTC)] * 3})


def copied(folder):
    rules = CandidateRules(duplicates="drop")
    return snapshot_list(ROWS.to_arrow(), folder, ["user_id"], folder / "rows.parquet", rules, ["user_id"])


def test_what_the_rules_leave_out_is_counted(tmp_path):
    found = copied(tmp_path)
    assert (found.snapshot.rows, found.dropped) == (2, 1)
    assert pl.read_parquet(found.snapshot.path)["user_id"].to_list() == [2, 1]


def test_a_place_that_takes_no_checked_rows_is_a_message(tmp_path):
    (tmp_path / "checked-rows.parquet").mkdir()
    with pytest.raises(DataError, match=r"the table: .*checked-rows"):
        copied(tmp_path)
