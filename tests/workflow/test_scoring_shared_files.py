"""Scores in the DuckDB file of a source: refused where the job would wait for itself, taken where it need not."""

import shutil
from pathlib import Path

import duckdb
import polars as pl
import pytest
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.datasets.projects import apply_features
from mtl_rank.errors import ConfigError

CANDIDATES = "data/candidates.parquet"
VIEWS = """
from datetime import timedelta

from entities import item, user
from feast import FeatureView, Field
from feast.types import Float64

from mtl_rank.features.duckdb_source import DuckDBSource


def view(name, path):
    return FeatureView(
        name=name,
        entities=[user, item],
        ttl=timedelta(days=2),
        online=False,
        source=DuckDBSource(path=path, table=name, timestamp_field="moment"),
        schema=[Field(name="ctr", dtype=Float64)],
    )


beside, apart = view("beside", "../data/shop.duckdb"), view("apart", "../data/apart.duckdb")
"""


@pytest.fixture(scope="module")
def shop(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained shop with a source in data/shop.duckdb, and views for scores in that file and in another."""
    project = shutil.copytree(trained, tmp_path_factory.mktemp("shared") / "shop")
    with duckdb.connect(str(project / "data" / "shop.duckdb")) as con:
        con.execute(f"CREATE TABLE item_profile AS FROM '{project}/data/item_profile.parquet'")
    for name in ("shop", "apart"):
        with duckdb.connect(str(project / "data" / f"{name}.duckdb")) as con:
            table = "beside" if name == "shop" else name
            con.execute(
                f"CREATE TABLE {table} (user_id BIGINT, item_id BIGINT, ctr DOUBLE, moment TIMESTAMPTZ)"
            )
    sources = project / "feature_repo" / "sources.py"
    text = sources.read_text()
    changed = text.replace(
        'table("item_profile", created="created")',
        'DuckDBSource(path="../data/shop.duckdb", table="item_profile", timestamp_field="event_timestamp", '
        'created_timestamp_column="created")',
    )
    assert changed != text
    sources.write_text(
        changed.replace(
            "from feast import FileSource\n",
            "from feast import FileSource\n\nfrom mtl_rank.features.duckdb_source import DuckDBSource\n",
        )
    )
    (project / "feature_repo" / "for_scores.py").write_text(VIEWS, encoding="utf-8")
    apply_features(project / "feature_repo")
    return project


def test_the_file_that_a_view_reads_takes_no_scores(shop: Path, tmp_path: Path) -> None:
    file, link = shop / "data" / "shop.duckdb", tmp_path / "link.duckdb"
    link.symlink_to(file)
    before = file.read_bytes()
    for to in (file, link):
        outcome = mtlrank("score", "--candidates", CANDIDATES, "--to", to, cwd=shop)
        assert (outcome.code, outcome.out) == (2, "")
        assert f"--to {to.resolve()}: feature view 'item_profile' reads this file" in outcome.err
    with pytest.raises(ConfigError, match=r"--push beside: .*'item_profile' reads this file"):
        mr.score(shop, candidates=CANDIDATES, to=tmp_path / "s.duckdb", push="beside")
    assert file.read_bytes() == before
    assert not (tmp_path / "s.duckdb").exists()


def test_the_file_of_a_view_that_takes_scores_takes_them_as_a_table_too(shop: Path) -> None:
    file = shop / "data" / "apart.duckdb"
    rows = pl.read_parquet(shop / CANDIDATES).unique(["user_id", "item_id"], maintain_order=True)
    mr.score(shop, candidates=rows, to=file, push="apart")
    with duckdb.connect(str(file), read_only=True) as con:
        pushed, scored = (
            con.sql(f"SELECT user_id, item_id, ctr FROM {table} ORDER BY ALL").pl()
            for table in ("apart", "scores")
        )
    assert pushed.equals(scored)
    assert pushed.height == rows.height
