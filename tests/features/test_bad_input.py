"""What does not fit ends in one or two plain lines that name the view and the column, before any work is done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.bigquery_source import BigQuerySource
from feast.infra.registry.registry import Registry
from stores import at, ours, parquet, repo_config, view

from mtl_rank.errors import MtlRankError
from mtl_rank.features.duckdb_source import DuckDBSource
from mtl_rank.features.offline_store import DuckDBAsofOfflineStore, DuckDBAsofOfflineStoreConfig

ROWS = pd.DataFrame({"user": [1, 2], "event_timestamp": [at(1), at(2)]})
HISTORY = pd.DataFrame({"user": [1, 2], "ts": [at(0), at(0)], "x": [1.0, 2.0]})


def history(folder: Path, **changes: Any) -> FileSource:
    return parquet(folder / "stats.parquet", HISTORY.assign(**changes))


def file(folder: Path, content: bytes) -> FileSource:
    (folder / "stats.parquet").write_bytes(content)
    return FileSource(name="stats", path="stats.parquet", timestamp_field="ts")


BAD_ROWS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no join key": (
        lambda folder: ROWS.rename(columns={"user": "usr"}),
        ["'user'", "feature view 'stats'", "did you mean 'usr'?"],
    ),
    "no event timestamp": (
        lambda folder: ROWS.rename(columns={"event_timestamp": "event_time"}).astype(str),
        ["'event_timestamp'", "did you mean 'event_time'?"],
    ),
    "two timestamps, neither of the name": (
        lambda folder: ROWS.rename(columns={"event_timestamp": "a"}).assign(b=at(0)),
        ["'event_timestamp'", "several columns are timestamps"],
    ),
    "times are numbers": (
        lambda folder: ROWS.assign(event_timestamp=[1, 2]),
        ["event_timestamp is BIGINT", "must be a timestamp"],
    ),
    "times are words": (
        lambda folder: ROWS.assign(event_timestamp=["yesterday", "today"]),
        ["event_timestamp is not a time", "yesterday"],
    ),
    "times are words in Arrow": (
        lambda folder: pa.table({"user": [1], "event_timestamp": ["yesterday"]}),
        ["event_timestamp is not a time: 'yesterday'"],
    ),
    "keys are strings": (
        lambda folder: ROWS.assign(user=["1", "2"]),
        ["feature view 'stats'", "'user' is VARCHAR in the entity rows", "BIGINT"],
    ),
    "two columns of one name": (
        lambda folder: pd.concat([ROWS, ROWS[["user"]]], axis=1),
        ["two columns are named 'user'"],
    ),
    "two columns of one name but for case": (
        lambda folder: ROWS.assign(User=1),
        ["two columns are named 'user'"],
    ),
    "a column with the name of a feature": (lambda folder: ROWS.assign(x=1), ["'x'", "full_feature_names"]),
    "no table": (lambda folder: [1, 2], ["list is not a table"]),
    "no such file": (
        lambda folder: "rows.parquet",
        ["rows.parquet does not exist", "did you mean 'raws.parquet'?"],
    ),
    "no such folder": (
        lambda folder: "nowhere/rows.parquet",
        ["nowhere/rows.parquet does not exist, nor does its folder"],
    ),
    "no file matches": (lambda folder: "no*.parquet", ["no file matches", "no*.parquet"]),
    "an empty folder": (lambda folder: "empty", ["empty holds no .parquet file"]),
    "not SQL": (lambda folder: "impressions of last week", ["entity rows", "Parser Error"]),
    "no such table": (
        lambda folder: "SELECT * FROM impressions",
        ["entity rows", "impressions does not exist"],
    ),
    "two statements": (lambda folder: "SELECT 1; SELECT 2", ["one SELECT statement"]),
    "a statement that changes something": (lambda folder: "CREATE TABLE t (a INT)", ["one SELECT statement"]),
    "no such table in a DuckDB file": (
        lambda folder: "shop.duckdb:impresions",
        ["'impresions'", "did you mean 'impressions'?"],
    ),
    "no such DuckDB file": (lambda folder: "shopp.duckdb:impressions", ["shopp.duckdb does not exist"]),
}


BIG = 2**53


@pytest.mark.parametrize("dtypes", [("float64", "int64"), ("int64", "float64")])
def test_ids_that_floats_confuse(dtypes: tuple[str, str], tmp_path: Path, registry: Registry) -> None:
    """As a float, id 2**53 + 1 is id 2**53, and would get its features."""
    given, stored = dtypes
    source = history(tmp_path, user=pd.Series([BIG, BIG - 1]).astype(stored))
    fits = ROWS.assign(user=pd.Series([BIG - 1, 3]).astype(given))
    assert ours(fits, [view(source)], registry).to_df()["x"].fillna(0).tolist() == [2, 0]
    with pytest.raises(MtlRankError) as error:
        ours(
            ROWS.assign(user=pd.Series([BIG, None]).astype("Int64" if given == "int64" else given)),
            [view(source)],
            registry,
        ).to_arrow()
    assert_says(error.value, ["feature view 'stats'", "join key 'user'", "DOUBLE", str(BIG), "Int64"])


@pytest.mark.parametrize("case", BAD_ROWS)
def test_entity_rows(case: str, tmp_path: Path, registry: Registry) -> None:
    rows, said = BAD_ROWS[case]
    source = history(tmp_path)
    (tmp_path / "empty").mkdir()
    ROWS.to_parquet(tmp_path / "raws.parquet")
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as con:
        con.execute("CREATE TABLE impressions (user BIGINT, event_timestamp TIMESTAMP)")
    with pytest.raises(MtlRankError) as error:
        ours(rows(tmp_path), [view(source)], registry, base=tmp_path).to_arrow()
    assert_says(error.value, said)


BAD_SOURCES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no such file": (
        lambda folder: FileSource(path="stat.parquet", timestamp_field="ts"),
        ["stat.parquet does not exist", "did you mean 'stats.parquet'?"],
    ),
    "an empty file": (lambda folder: file(folder, b""), ["cannot be read", "stats.parquet"]),
    "a damaged file": (
        lambda folder: file(folder, b"PAR1" + b"x" * 99 + b"PAR1"),
        ["cannot be read", "stats.parquet"],
    ),
    "an empty folder": (
        lambda folder: FileSource(path="empty", file_format=ParquetFormat(), timestamp_field="ts"),
        ["empty holds no .parquet file"],
    ),
    "no timestamp column": (
        lambda folder: parquet(folder / "stats.parquet", HISTORY.rename(columns={"ts": "tz"})),
        ["no column 'ts'", "known: tz, user, x"],
    ),
    "no timestamp named": (
        lambda folder: FileSource(path=history(folder).path),
        ["names no timestamp_field"],
    ),
    "a timestamp that is a number": (
        lambda folder: history(folder, ts=[1, 2]),
        ["'ts'", "BIGINT, not a timestamp"],
    ),
    "a timestamp that is a word": (lambda folder: history(folder, ts=["a", "b"]), ["cannot be read", '"a"']),
    "no created column": (
        lambda folder: FileSource(
            path=history(folder).path, timestamp_field="ts", created_timestamp_column="created"
        ),
        ["no column 'created'"],
    ),
    "no key column": (
        lambda folder: parquet(folder / "stats.parquet", HISTORY.rename(columns={"user": "user_id"})),
        ["no column 'user'", "did you mean 'user_id'?"],
    ),
    "no feature column": (
        lambda folder: parquet(folder / "stats.parquet", HISTORY.rename(columns={"x": "xx"})),
        ["no column 'x'", "did you mean 'xx'?"],
    ),
    "keys are strings": (
        lambda folder: history(folder, user=["1", "2"]),
        ["'user' is BIGINT in the entity rows", "VARCHAR"],
    ),
    "no such DuckDB file": (
        lambda folder: DuckDBSource(path="shop.duckdb", table="stats", timestamp_field="ts"),
        ["shop.duckdb does not exist"],
    ),
    "not a DuckDB file": (
        lambda folder: DuckDBSource(path=history(folder).path, table="stats", timestamp_field="ts"),
        ["cannot be read", "not a valid DuckDB database"],
    ),
    "two statements": (
        lambda folder: DuckDBSource(
            path=database(folder), query="SELECT 1; DROP TABLE stats", name="q", timestamp_field="ts"
        ),
        ["one SELECT statement"],
    ),
    "a source of another store": (
        lambda folder: BigQuerySource(table="stats", timestamp_field="ts"),
        ["cannot read a BigQuerySource", "FileSource, DuckDBSource"],
    ),
}


def database(folder: Path) -> str:
    with duckdb.connect(str(folder / "shop.duckdb")) as con:
        con.execute("CREATE TABLE stats (a INT)")
    return "shop.duckdb"


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_sources(case: str, tmp_path: Path, registry: Registry) -> None:
    source, said = BAD_SOURCES[case]
    history(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MtlRankError) as error:
        ours(ROWS, [view(source(tmp_path))], registry, base=tmp_path).to_arrow()
    assert_says(error.value, ["feature view 'stats'", *said])


def test_an_unknown_view_in_a_reference(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(MtlRankError) as error:
        ours(ROWS, [view(history(tmp_path))], registry, feature_refs=["stats:x", "stast:x"])
    assert_says(error.value, ["'stast:x'", "did you mean 'stats'?"])


def test_a_file_that_goes_away_before_the_job_runs(tmp_path: Path, registry: Registry) -> None:
    source = history(tmp_path)
    job = ours(ROWS, [view(source)], registry)
    Path(source.path).unlink()
    with pytest.raises(MtlRankError) as error:
        job.to_arrow()
    assert_says(error.value, ["feature view 'stats'", "does not exist"])


def test_too_little_memory_says_which_limit_to_raise(tmp_path: Path, registry: Registry) -> None:
    frame = pd.DataFrame({"user": range(200_000), "ts": at(0), "x": 1.0})
    source = parquet(tmp_path / "stats.parquet", frame)
    rows = frame[["user"]].assign(event_timestamp=at(1))
    with pytest.raises(MtlRankError) as error:
        ours(rows, [view(source)], registry, memory_limit="3MB").to_arrow()
    assert_says(error.value, ["memory_limit", "temp_directory", "feature_store.yaml"])


@pytest.mark.parametrize(
    "setting", [{"memory_limit": "lots"}, {"threads": 0}, {"join_rows": -1}, {"fetch_rows": 0}]
)
def test_limits_that_are_none(setting: dict[str, Any], tmp_path: Path, registry: Registry) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=name):
        ours(ROWS, [view(history(tmp_path))], registry, **setting)


class TestAppending:
    """Rows that do not fit a source are refused and nothing is written."""

    def append(self, source: Any, base: Path, **columns: Any) -> None:
        table = pa.Table.from_pandas(HISTORY.assign(**columns))
        DuckDBAsofOfflineStore.offline_write_batch(
            repo_config(base, DuckDBAsofOfflineStoreConfig()), view(source), table, None
        )

    @pytest.mark.parametrize(
        ("columns", "said"),
        [({"y": 1.0}, ["not in the source ['y']"]), ({"x": ["a", "b"]}, ["column 'x' cannot become double"])],
        ids=["a column too many", "another type"],
    )
    def test_to_a_file(self, tmp_path: Path, columns: dict[str, Any], said: list[str]) -> None:
        with pytest.raises(MtlRankError) as error:
            self.append(history(tmp_path), tmp_path, **columns)
        assert_says(error.value, ["feature view 'stats'", *said])
        assert [path.name for path in tmp_path.iterdir()] == ["stats.parquet"]

    def test_to_a_query(self, tmp_path: Path) -> None:
        with duckdb.connect(str(tmp_path / "shop.duckdb")) as con:
            con.register("history", HISTORY)
            con.execute("CREATE TABLE stats AS FROM history")
        source = DuckDBSource(path="shop.duckdb", query="FROM stats", name="q", timestamp_field="ts")
        with pytest.raises(MtlRankError) as error:
            self.append(source, tmp_path)
        assert_says(error.value, ["feature view 'stats'", "cannot be added to a query"])

    def test_to_a_glob_that_nothing_new_matches(self, tmp_path: Path) -> None:
        history(tmp_path)
        source = FileSource(path="sta*.parquet", file_format=ParquetFormat(), timestamp_field="ts")
        with pytest.raises(MtlRankError) as error:
            self.append(source, tmp_path)
        assert_says(error.value, ["no new file can match sta*.parquet"])


def test_a_folder_with_other_files_is_not_overwritten(tmp_path: Path, registry: Registry) -> None:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    job = ours(ROWS, [view(history(tmp_path))], registry, base=tmp_path)
    with pytest.raises(MtlRankError) as error:
        job.persist(SavedDatasetFileStorage("home"), allow_overwrite=True)
    assert_says(error.value, ["letter.txt"])
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


def assert_says(error: Exception, parts: list[str]) -> None:
    text = str(error)
    assert all(part in text for part in parts), text
    assert len(text.splitlines()) <= 2
    assert len(text) < 500
