"""Scoring with the latest features of the online store: the same scores as offline as of now, and no value too old."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from harness import mtlrank

import mtl_rank as mr

CANDIDATES = "data/candidates.parquet"
STAMPS = ["run_id", "job_id", "scored_at"]
AT = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained shop with everything known at AT in its sqlite online store, as `feast materialize` puts it there."""
    import shutil

    project = shutil.copytree(trained, tmp_path_factory.mktemp("served") / "shop")
    command = [
        str(Path(sys.executable).with_name("feast")),
        *("-c", str(project / "feature_repo"), "materialize"),
        *("2025-01-01T00:00:00", AT.strftime("%Y-%m-%dT%H:%M:%S")),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return project


def scores(project: Path, to: Path, candidates: pl.DataFrame, at: datetime, features: str) -> pl.DataFrame:
    mr.score(project, candidates=candidates, to=to, as_of=at, features=features)
    return pl.read_parquet(to).drop(STAMPS)


@pytest.fixture(scope="module")
def wanted(served: Path) -> pl.DataFrame:
    known = pl.read_parquet(served / CANDIDATES).head(5_000)
    strangers = known.head(5).with_columns(pl.col("user_id") + 10**9)
    return pl.concat([known, strangers])


def test_online_as_of_now_is_offline_as_of_now(served: Path, wanted: pl.DataFrame, tmp_path: Path) -> None:
    found = {
        features: scores(served, tmp_path / f"{features}.parquet", wanted, AT, features)
        for features in ("online", "offline")
    }
    assert found["online"].height == wanted.height
    assert found["online"].equals(found["offline"])


def test_what_is_older_than_its_ttl_is_missing_online_as_offline(
    served: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    # item_stats holds for 14 days, item_profile for 35.
    at = AT + timedelta(days=20)
    reports = {}
    for features in ("online", "offline"):
        to = tmp_path / f"{features}.parquet"
        reports[features] = mr.score(served, candidates=wanted, to=to, as_of=at, features=features)
    assert reports["online"].missing == reports["offline"].missing
    assert reports["online"].missing["item_stats"] == 1
    assert reports["online"].missing["item_profile"] < 0.1
    assert (
        pl.read_parquet(tmp_path / "online.parquet")
        .drop(STAMPS)
        .equals(pl.read_parquet(tmp_path / "offline.parquet").drop(STAMPS))
    )


def test_views_that_are_not_in_the_store_are_counted_and_told(
    trained: Path, wanted: pl.DataFrame, tmp_path: Path
) -> None:
    # Nothing was materialised here.
    arguments = ("--candidates", CANDIDATES, "--to", tmp_path / "s.duckdb", "--features", "online")
    outcome = mtlrank("score", *arguments, cwd=trained)
    assert outcome.code == 0, outcome.err
    assert "rows without features of a view: user_profile 100.0%" in outcome.out
    again = mtlrank("score", *arguments, "--json", cwd=trained).document
    assert (again["already_finished"], again["missing"]["price_match"]) == (True, 1.0)


def test_pairs_are_scored_online_too(served: Path, wanted: pl.DataFrame, tmp_path: Path) -> None:
    users = wanted.select("user_id", "hour").unique("user_id", maintain_order=True).head(7)
    items = wanted.select("item_id", "category_id").unique("item_id", maintain_order=True).head(30)
    tables = []
    for features in ("online", "offline"):
        to = tmp_path / f"{features}.parquet"
        mr.score(served, users=users, items=items, to=to, as_of=AT, features=features)
        tables.append(pl.read_parquet(to).drop(STAMPS))
    assert tables[0].height == 210
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--features", "onlin"), ["--features onlin", "'online'"]),
        (("--features", "online", "--null-keys", "keep"), ["--null-keys keep", "drop"]),
        (("--engine", "rya"), ["--engine rya", "'ray'"]),
        (("--workers", "2"), ["--workers needs --engine ray"]),
        (("--address", "10.0.0.1:6379"), ["--address needs --engine ray"]),
    ],
)
def test_options_that_make_no_sense_are_told(
    trained: Path, tmp_path: Path, options: tuple[str, ...], words: list[str]
) -> None:
    outcome = mtlrank(
        "score", "--candidates", CANDIDATES, "--to", tmp_path / "s.duckdb", *options, cwd=trained
    )
    assert (outcome.code, outcome.out) == (2, "")
    assert [word for word in words if word not in outcome.err] == []
