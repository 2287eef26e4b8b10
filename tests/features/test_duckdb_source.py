"""A DuckDB file as a data source of Feast: its identity, and results that are saved in it."""

from pathlib import Path

import duckdb
import pytest
from feast import FileSource
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.registry.registry import Registry
from source_kinds import EXPECTED, ROWS, duckdb_table
from stores import ours, view

from mtl_rank.errors import ConfigError
from mtl_rank.features.duckdb_source import DuckDBSource, SavedDatasetDuckDBStorage


def test_it_survives_the_registry() -> None:
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


def test_its_name_is_that_of_the_table() -> None:
    assert DuckDBSource(path="shop.duckdb", table="s.stats").name == "s.stats"


def test_other_places_are_other_sources() -> None:
    stats = DuckDBSource(path="shop.duckdb", table="stats")
    assert stats != DuckDBSource(path="other.duckdb", table="stats")
    assert stats != DuckDBSource(path="shop.duckdb", query="FROM stats", name="stats")
    assert stats != FileSource(name="stats", path="shop.duckdb")


@pytest.mark.parametrize(
    "options",
    [{}, {"table": "t", "query": "FROM t"}, {"query": "FROM t"}],
    ids=["neither", "both", "no name"],
)
def test_what_it_needs(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"shop\.duckdb"):
        DuckDBSource(path="shop.duckdb", **options)


def test_two_views_and_the_rows_of_one_file(repo: Path, registry: Registry) -> None:
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


def test_a_result_is_saved_in_the_file_that_it_was_read_from(repo: Path, registry: Registry) -> None:
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
