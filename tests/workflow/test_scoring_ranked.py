"""Scoring with --rank-by, --top-k, --carry, and with pairs made of users and items."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.errors import ConfigError, DataError
from mtl_rank.scoring import score as scoring

CANDIDATES = "data/candidates.parquet"
STAMPS = ["run_id", "job_id", "scored_at"]


def read(path: Path) -> pl.DataFrame:
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql("SELECT * FROM scores ORDER BY rowid").pl().drop(STAMPS)


@pytest.fixture(scope="module")
def wanted(trained: Path) -> pl.DataFrame:
    """Candidates in an order in which those of a user are far apart."""
    return pl.read_parquet(trained / CANDIDATES).sort("item_id", "user_id").head(900)


@pytest.fixture(scope="module")
def plain(trained: Path, wanted: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    path = tmp_path_factory.mktemp("plain") / "scores.duckdb"
    mr.score(trained, candidates=wanted, to=path)
    return read(path)


def by_hand(scores: pl.DataFrame, value: pl.Expr, top_k: int | None = None) -> pl.DataFrame:
    """The ranked table, from an unranked one."""
    table = (
        scores.with_row_index("position")
        .with_columns(rank_by=value)
        .sort("user_id", pl.col("rank_by").neg(), "position", nulls_last=True)
        .with_columns(rank=(pl.int_range(pl.len(), dtype=pl.Int64) + 1).over("user_id"))
        .drop("position")
    )
    return table if top_k is None else table.filter(pl.col("rank") <= top_k)


@pytest.mark.parametrize("chunk_rows", [128, 122_880])
def test_candidates_of_a_user_are_ranked_together_whatever_the_chunks(
    trained: Path,
    wanted: pl.DataFrame,
    plain: pl.DataFrame,
    tmp_path: Path,
    chunk_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_ROWS", chunk_rows)
    path = tmp_path / "scores.duckdb"
    summary = mr.score(trained, candidates=wanted, to=path, rank_by="ctr * cvr ** 0.5")
    # Python's own power, which differs from NumPy's in the last bit.
    values = [ctr * cvr**0.5 for ctr, cvr in zip(plain["ctr"], plain["cvr"], strict=True)]
    expected = by_hand(plain, pl.lit(pl.Series(values)))
    assert read(path).equals(expected)
    assert (summary.rows, summary.kept) == (900, 900)


def test_only_the_best_of_each_user_are_kept(
    trained: Path, wanted: pl.DataFrame, plain: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 200)
    path = tmp_path / "scores.duckdb"
    wanted.write_parquet(tmp_path / "rows.parquet")
    options = ("--rank-by", "ctcvr", "--top-k", "2", "--per", "user_id", "--json")
    arguments = ("score", "--candidates", str(tmp_path / "rows.parquet"), "--to", path, *options)
    document = mtlrank(*arguments, cwd=trained).document
    expected = by_hand(plain, pl.col("ctcvr"), top_k=2)
    assert read(path).equals(expected)
    assert (document["rows"], document["kept"]) == (900, expected.height)
    assert mtlrank(*arguments, cwd=trained).document["already_finished"]
    assert read(path).height == expected.height


def test_a_ranked_job_killed_between_chunks_ends_as_if_it_had_not_been(
    trained: Path, wanted: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 200)
    options = {"candidates": wanted, "rank_by": "ctr", "top_k": 3}
    mr.score(trained, to=tmp_path / "whole.duckdb", **options)

    class StopAtThird:
        def stage(self, name: str, total: int | None) -> None: ...
        def say(self, text: str) -> None: ...
        def advance(self, done: int, note: str = "") -> None:
            if done > 500:
                raise KeyboardInterrupt

    path = tmp_path / "stopped.duckdb"
    with pytest.raises(KeyboardInterrupt):
        mr.score(trained, to=path, reporter=StopAtThird(), **options)
    whole, begun = read(tmp_path / "whole.duckdb"), read(path)
    assert 0 < begun.height < whole.height
    # A reader sees users complete or not at all.
    assert begun.equals(whole.filter(pl.col("user_id").is_in(begun["user_id"].implode())))
    mr.score(trained, to=path, **options)
    assert read(path).equals(whole)


def test_columns_are_carried_and_can_rank(
    trained: Path, wanted: pl.DataFrame, plain: pl.DataFrame, tmp_path: Path
) -> None:
    price = np.random.default_rng(1).integers(1, 50, wanted.height)
    given = wanted.with_columns(
        pl.Series("price", [None if p == 7 else p for p in price.tolist()], pl.Int32),
        pl.Series("slot", [f"s{p % 3}" for p in price]),
    )
    path = tmp_path / "scores.duckdb"
    mr.score(trained, candidates=given, to=path, carry=["slot", "price"], rank_by="ctr * price")
    table = read(path)
    assert table.columns[:6] == ["user_id", "item_id", "category_id", "slot", "price", "event_timestamp"]
    assert table.schema["price"] == pl.Int32
    expected = by_hand(
        plain.with_columns(given["slot"], given["price"]), pl.col("ctr") * pl.col("price")
    ).select(table.columns)
    assert table.equals(expected)
    assert table.filter(pl.col("price").is_null())["rank_by"].null_count() > 0


def test_any_columns_make_a_key(
    trained: Path, wanted: pl.DataFrame, plain: pl.DataFrame, tmp_path: Path
) -> None:
    slots = wanted.with_columns(slot=pl.int_range(pl.len()) % 3)
    path = tmp_path / "scores.duckdb"
    mr.score(trained, candidates=slots, to=path, rank_by="-ctr", per=["slot", "event_timestamp"], top_k=1)
    table = read(path)
    expected = plain.with_columns(slots["slot"]).group_by("slot").agg(pl.col("ctr").min()).sort("slot")
    assert table.select("slot", "ctr").equals(expected)
    assert table["rank"].to_list() == [1, 1, 1]


@pytest.fixture(scope="module")
def lists(wanted: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    users = wanted.select("user_id", "event_timestamp", "hour").unique("user_id").sort("user_id").head(23)
    items = wanted.select("item_id", "category_id").unique("item_id").sort("item_id").tail(31)
    return users.reverse(), items


@pytest.mark.parametrize("chunk_rows", [40, 122_880])
def test_pairs_are_scored_as_if_they_had_been_listed(
    trained: Path,
    lists: tuple[pl.DataFrame, pl.DataFrame],
    tmp_path: Path,
    chunk_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users, items = lists
    mr.score(trained, candidates=users.join(items, how="cross"), to=tmp_path / "listed.duckdb")
    listed = read(tmp_path / "listed.duckdb")

    monkeypatch.setattr(scoring, "CHUNK_ROWS", chunk_rows)
    users.write_parquet(tmp_path / "users.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    sources = ("--users", tmp_path / "users.parquet", "--items", tmp_path / "items.parquet")
    every = ("score", *sources, "--to", tmp_path / "every.duckdb", "--json")
    document = mtlrank(*every, cwd=trained).document
    assert (document["rows"], document["already_finished"]) == (23 * 31, False)
    assert read(tmp_path / "every.duckdb").equals(listed)
    assert mtlrank(*every, cwd=trained).document["already_finished"]

    best = ("score", *sources, "--to", tmp_path / "best.duckdb", "--rank-by", "ctr", "--top", "5", "--json")
    document = mtlrank(*best, cwd=trained).document
    assert (document["rows"], document["kept"]) == (23 * 31, 23 * 5)
    assert read(tmp_path / "best.duckdb").equals(by_hand(listed, pl.col("ctr"), top_k=5))


def test_a_user_given_at_two_times_is_ranked_over_both(
    trained: Path, lists: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 3)
    users, items = lists[0].head(3), lists[1].head(8)
    twice = pl.concat([users, users.with_columns(pl.col("event_timestamp").dt.offset_by("-10d"))])
    path = tmp_path / "s.duckdb"
    mr.score(trained, users=twice, items=items, to=path, rank_by="ctr", top_k=4)
    assert read(path).group_by("user_id").len()["len"].to_list() == [4, 4, 4]
    mr.score(
        trained,
        users=twice,
        items=items,
        to=tmp_path / "t.duckdb",
        rank_by="ctr",
        top_k=4,
        per=["user_id", "event_timestamp"],
    )
    assert read(tmp_path / "t.duckdb").group_by("user_id").len()["len"].to_list() == [8, 8, 8]


def test_lists_that_make_no_pairs_are_refused(
    trained: Path, lists: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    users, items = lists
    path = tmp_path / "s.duckdb"
    both = items.with_columns(user_id=1)
    with pytest.raises(DataError, match="both have 'user_id'"):
        mr.score(trained, users=users, items=both, to=path)
    with pytest.raises(DataError, match="no column 'category_id'"):
        mr.score(trained, users=users, items=items.drop("category_id"), to=path)
    with pytest.raises(DataError, match="no column 'event_timestamp'"):
        mr.score(trained, users=users.drop("event_timestamp"), items=items, to=path)
    with pytest.raises(ConfigError, match="--per item_id: pairs are ranked per user"):
        mr.score(trained, users=users, items=items, to=path, rank_by="ctr", per=["item_id"])
    with pytest.raises(DataError, match="1 of 2 rows have no 'item_id'"):
        mr.score(
            trained, users=users, items=items.head(2).with_columns(item_id=pl.Series([None, 1])), to=path
        )
    with pytest.raises(ConfigError, match="both --users and --items"):
        mr.score(trained, users=users, to=path)
    with pytest.raises(ConfigError, match="--top-k needs --rank-by"):
        mr.score(trained, users=users, items=items, to=path, top_k=3)
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rank-by", "ctr *"), ["--rank-by 'ctr *'", "ctr * cvr ** 0.5"]),
        (("--rank-by", "ctrr"), ["'ctrr'", "'ctr'"]),
        (("--rank-by", "ctr * price"), ["'price'"]),
        (("--rank-by", "__import__('os').getcwd()"), ["--rank-by"]),
        (("--rank-by", "ctr / (hour - hour)", "--carry", "hour"), ["division by zero", "candidates"]),
        (("--rank-by", "ctr", "--per", "usr_id"), ["'usr_id'", "'user_id'"]),
        (("--rank-by", "ctr", "--top-k", "0"), ["--top-k 0"]),
        (("--per", "user_id"), ["--per needs --rank-by"]),
        (("--carry", "colour"), ["'colour'"]),
        (
            ("--rank-by", "ctr * (event_timestamp)", "--carry", "event_timestamp"),
            ["event_timestamp", "no number"],
        ),
    ],
)
def test_mistakes_in_ranking_are_told(
    trained: Path, tmp_path: Path, options: tuple[str, ...], words: list[str]
) -> None:
    outcome = mtlrank(
        "score", "--candidates", CANDIDATES, "--to", tmp_path / "s.duckdb", *options, cwd=trained
    )
    assert (outcome.code, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err
    assert [word for word in words if word not in outcome.err] == []
