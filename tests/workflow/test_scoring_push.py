"""Scores written back to Feast: what is read afterwards, offline and online, is what the table holds."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import feast
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.datasets.projects import apply_features
from mtl_rank.errors import ScoresError
from mtl_rank.scoring import score as scoring

CANDIDATES = "data/candidates.parquet"
OUTPUTS = ["ctr", "cvr", "dwell"]

SCORES = pa.schema(
    [
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        *((name, pa.float64()) for name in OUTPUTS),
        ("run_id", pa.string()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("created", pa.timestamp("us", tz="UTC")),
    ]
)
VIEWS = """
from datetime import timedelta

from entities import item, user
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Float64, String

stored = FileSource(
    name="stored_scores", path="../data/pushed.parquet", timestamp_field="at", created_timestamp_column="created"
)
schema = [Field(name=name, dtype=Float64) for name in ("ctr", "cvr", "dwell")]
scores = FeatureView(
    name="scores",
    entities=[user, item],
    ttl=timedelta(days=2),
    source=PushSource(name="scores_pushed", batch_source=stored),
    schema=[*schema, Field(name="run_id", dtype=String)],
)
unknown = FeatureView(
    name="unknown",
    entities=[user, item],
    ttl=timedelta(days=2),
    source=FileSource(name="unknown", path="../data/unknown.parquet", timestamp_field="at"),
    schema=[*schema, Field(name="margin", dtype=Float64)],
)
nowhere = FeatureView(
    name="nowhere",
    entities=[user, item],
    ttl=timedelta(days=2),
    source=FileSource(name="nowhere", path="../data/nowhere.parquet", timestamp_field="at"),
    schema=schema,
)
"""


@pytest.fixture(scope="module")
def with_views(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained shop with views that scores can be written to. To be read, not changed."""
    project = shutil.copytree(trained, tmp_path_factory.mktemp("pushed") / "shop")
    (project / "feature_repo" / "pushed.py").write_text(VIEWS, encoding="utf-8")
    pq.write_table(SCORES.empty_table(), project / "data" / "pushed.parquet")
    wide = pa.schema([*(field for field in SCORES if field.name != "run_id"), ("margin", pa.float64())])
    pq.write_table(wide.empty_table(), project / "data" / "unknown.parquet")
    apply_features(project / "feature_repo")
    # Feast looks at sources when they are applied.
    (project / "data" / "nowhere.parquet").unlink(missing_ok=True)
    return project


@pytest.fixture
def shop(with_views: Path, tmp_path: Path) -> Path:
    return shutil.copytree(with_views, tmp_path / "shop")


def offline(project: Path, rows: pl.DataFrame, later: timedelta = timedelta(0)) -> pl.DataFrame:
    """What Feast knows offline about pairs, some time after they were scored."""
    asked = rows.select("user_id", "item_id", pl.col("event_timestamp") + later).to_pandas()
    store = feast.FeatureStore(repo_path=str(project / "feature_repo"))
    job = store.get_historical_features(entity_df=asked, features=[f"scores:{name}" for name in OUTPUTS])
    found = pl.from_arrow(job.to_arrow())
    assert isinstance(found, pl.DataFrame)
    return found.select(OUTPUTS)


def online(project: Path, rows: pl.DataFrame) -> pl.DataFrame:
    store = feast.FeatureStore(repo_path=str(project / "feature_repo"))
    found = store.get_online_features(
        features=[f"scores:{name}" for name in OUTPUTS],
        entity_rows={name: rows[name].to_list() for name in ("user_id", "item_id")},
    ).to_dict()
    return pl.DataFrame({name: found[name] for name in OUTPUTS})


def pushed_rows(project: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in (project / "data").rglob("pushed.parquet*/*"))


@pytest.fixture
def wanted(shop: Path) -> pl.DataFrame:
    return pl.read_parquet(shop / CANDIDATES).unique(["user_id", "item_id"], maintain_order=True).head(300)


def test_what_was_pushed_is_read_offline_and_online(shop: Path, wanted: pl.DataFrame, tmp_path: Path) -> None:
    to = tmp_path / "scores.parquet"
    summary = mr.score(shop, candidates=wanted, to=to, push="scores")
    table = pl.read_parquet(to)
    assert (summary.rows, pushed_rows(shop)) == (300, 300)
    assert offline(shop, wanted).equals(table.select(OUTPUTS))
    assert online(shop, wanted).equals(table.select(OUTPUTS))
    # Not known before it was true, nor for longer than the view says.
    assert offline(shop, wanted, -timedelta(seconds=1)).null_count().row(0) == (300,) * 3
    assert offline(shop, wanted, timedelta(days=2, seconds=1)).null_count().row(0) == (300,) * 3
    # Finished is finished: the same command changes nothing.
    assert mr.score(shop, candidates=wanted, to=to, push="scores").written == 0
    assert pushed_rows(shop) == 300


def test_ids_beside_a_null_are_pushed_to_the_last_digit(
    shop: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    user = 2**53 + 1
    rows = wanted.head(2).with_columns(user_id=pl.Series([user, None], dtype=pl.Int64))
    mr.score(shop, candidates=rows, to=tmp_path / "scores.parquet", push="scores", null_keys="keep")
    (path,) = (shop / "data" / "pushed.parquet.appended").iterdir()
    assert pl.read_parquet(path)["user_id"].to_list() == [user]


def test_a_job_that_died_between_push_and_commit_pushes_again_and_nothing_read_changes(
    shop: Path, wanted: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl_rank.scoring.sink import DuckDBSink

    monkeypatch.setattr(scoring, "CHUNK_ROWS", 100)
    to, commit = tmp_path / "scores.duckdb", DuckDBSink.commit

    def dying(sink, chunk, *arguments):
        if chunk.number == 1:
            raise SystemExit("killed")
        return commit(sink, chunk, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBSink, "commit", dying)
        with pytest.raises(SystemExit):
            mr.score(shop, candidates=wanted, to=to, push="scores")
    assert pushed_rows(shop) == 200
    with pytest.raises(ScoresError, match="its scores were pushed to scores: say --push scores to continue"):
        mr.score(shop, candidates=wanted, to=to)
    assert mr.score(shop, candidates=wanted, to=to, push="scores").written == 200
    assert pushed_rows(shop) == 400

    mr.score(shop, candidates=wanted, to=tmp_path / "undisturbed.parquet")
    table = pl.read_parquet(tmp_path / "undisturbed.parquet").select(OUTPUTS)
    found = offline(shop, wanted)
    assert found.equals(table), "one row per pair, with its score"
    assert online(shop, wanted).equals(table)


def test_of_a_pair_scored_anew_the_later_scores_are_read(
    shop: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    at = datetime(2026, 3, 30, tzinfo=UTC)
    for days in (0, 1):
        moment = at + timedelta(days=days)
        mr.score(shop, candidates=wanted, to=tmp_path / f"{days}.parquet", as_of=moment, push="scores")
    tables = [pl.read_parquet(tmp_path / f"{days}.parquet") for days in (0, 1)]
    for table in tables:
        assert offline(shop, table).equals(table.select(OUTPUTS))
    assert not tables[0].select(OUTPUTS).equals(tables[1].select(OUTPUTS))
    assert online(shop, wanted).equals(tables[1].select(OUTPUTS))


def test_a_job_finished_without_a_push_is_not_taken_for_pushed(
    shop: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    for to in ("s.duckdb", "s.parquet"):
        mr.score(shop, candidates=wanted, to=tmp_path / to)
        with pytest.raises(ScoresError, match="not pushed: --replace the scores"):
            mr.score(shop, candidates=wanted, to=tmp_path / to, push="scores")
    assert pushed_rows(shop) == 0
    mr.score(shop, candidates=wanted, to=tmp_path / "s.parquet", push="scores", replace=True)
    assert pushed_rows(shop) == 300


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("score", ["no such feature view", "'scores'"]),
        ("price_match", ["on-demand"]),
        ("unknown", ["'margin'", "scores have not"]),
        ("nowhere", ["source cannot be read", "nowhere.parquet", "first time"]),
        ("user_profile", ["'age_band'"]),
    ],
)
def test_a_view_that_cannot_take_scores_is_refused_before_work(
    shop: Path, tmp_path: Path, view: str, words: list[str]
) -> None:
    arguments = ("--candidates", CANDIDATES, "--to", tmp_path / "s.duckdb", "--push", view)
    outcome = mtlrank("score", *arguments, cwd=shop)
    assert (outcome.code, outcome.out) == (2, ""), outcome.err
    assert "Traceback" not in outcome.err
    assert [word for word in [f"--push {view}", *words] if word not in outcome.err] == []
    assert not (tmp_path / "s.duckdb").exists()
