"""Some rows of a retrieval, and a service without views: its features are the columns of the rows."""

from dataclasses import replace
from pathlib import Path

import feast
import polars as pl
import pyarrow as pa
import pytest

from mtl_rank.config import load_config
from mtl_rank.features.repository import FeatureRepository, open_repository
from mtl_rank.features.retrieval import retrieve
from mtl_rank.features.snapshot import Snapshot, snapshot_rows

CANDIDATES = "data/candidates.parquet"


@pytest.fixture(scope="module")
def repository(applied: Path) -> FeatureRepository:
    config = load_config(applied)
    return open_repository(applied / "feature_repo", config.feature_service, config.context)


@pytest.fixture
def snapshot(applied: Path, tmp_path: Path) -> Snapshot:
    columns = ["user_id", "item_id", "category_id", "hour"]
    rows = pl.read_parquet(applied / CANDIDATES)
    timed = rows.with_columns(
        pl.col("event_timestamp").dt.offset_by(pl.format("-{}s", pl.int_range(pl.len())))
    )
    return snapshot_rows(timed, applied, columns, tmp_path / "rows.parquet")


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("last", [None, 7, 8, 900])
@pytest.mark.parametrize("with_views", [True, False])
def test_some_rows_are_a_part_of_all(
    repository: FeatureRepository, snapshot: Snapshot, first: int, last: int | None, with_views: bool
) -> None:
    if not with_views:
        repository = replace(repository, service=feast.FeatureService(name="rows", features=[]))
    whole = retrieve(repository, snapshot).read_all()
    some = retrieve(repository, snapshot, first_row=first, last_row=last, batch_rows=100).read_all()
    count = max(0, (last or snapshot.rows) - first)
    assert whole.num_rows == snapshot.rows
    assert some.equals(whole.slice(first, count))


def test_without_views_the_rows_are_the_table(repository: FeatureRepository, snapshot: Snapshot) -> None:
    alone = replace(repository, service=feast.FeatureService(name="rows", features=[]))
    reader = retrieve(alone, snapshot, start=snapshot.first, end=snapshot.last, batch_rows=100)
    batches = list(reader)
    found = pl.from_arrow(pa.Table.from_batches(batches))
    expected = pl.read_parquet(snapshot.path).filter(pl.col("event_timestamp") < snapshot.last)
    assert isinstance(found, pl.DataFrame)
    assert found.columns == expected.columns
    for name in expected.columns:
        assert found[name].to_list() == expected[name].to_list()
    assert max(batch.num_rows for batch in batches) <= 100
