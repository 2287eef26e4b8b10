"""The KuaiRand project: what it holds, when it was known, and that it appears whole or not at all."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mtl_rank.config import load_config
from mtl_rank.datasets.kuairand import KuaiRandSummary, import_kuairand
from mtl_rank.errors import MtlRankError

CHECKOUT = Path(__file__).parents[1]
SOURCE = Path(os.environ.get("MTLRANK_KUAIRAND", CHECKOUT.parent / "shared" / "kuairand"))
LOG = "log_standard_20220425_20220430.parquet"
USERS = "user_features_pure.parquet"
VIDEOS = "video_features_basic_pure.parquet"
HISTORY = "user_history_until_20220424.parquet"
FILES = (LOG, USERS, VIDEOS, HISTORY)
HISTORY_END = datetime(2022, 4, 24, 16, tzinfo=UTC)
DAY_MS, BEIJING_MS = 24 * 3600 * 1000, 8 * 3600 * 1000
COUNTED = {"clicks": "is_click", "long_views": "long_view", "likes": "is_like"}
LABELS = ["is_click", "long_view", "is_like", "is_follow", "play_time_ms"]
KEYS = {
    "user_profile": ["user_id"],
    "video_facts": ["video_id"],
    "user_activity_live": ["user_id"],
    "user_activity_daily": ["user_id"],
    "video_activity_live": ["video_id"],
    "video_activity_daily": ["video_id"],
    "user_history": ["user_id"],
    "user_history_priors": ["user_id"],
    "video_history_priors": ["video_id"],
    "user_tag_priors": ["user_id", "tag_id"],
}

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="the KuaiRand files are not here")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> KuaiRandSummary:
    return import_kuairand(SOURCE, tmp_path_factory.mktemp("kuairand") / "project")


@pytest.fixture(scope="module")
def project(summary: KuaiRandSummary) -> Path:
    return summary.project


@pytest.fixture(scope="module")
def impressions(project: Path) -> pl.DataFrame:
    return table(project, "impressions")


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    """The published log without its exact duplicates."""
    return pl.read_parquet(SOURCE / LOG).unique()


@pytest.fixture(scope="module")
def sample(impressions: pl.DataFrame) -> pl.DataFrame:
    """Some impressions, many of them in the same millisecond as another of their user: the hard ones to count."""
    together = impressions.filter(pl.len().over("user_id", "event_timestamp") > 1)
    return pl.concat([impressions.sample(150, seed=1), together.sample(50, seed=2)]).unique()


def table(project: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(project / "data" / f"{name}.parquet")


def known_at(project: Path, rows: pl.DataFrame, *views: str) -> pl.DataFrame:
    """Each row with the newest row of every view at or before it; columns `view__feature`."""
    rows = rows.sort("event_timestamp", maintain_order=True)
    for view in views:
        features = table(project, view).sort("event_timestamp")
        kept = {*KEYS[view], "event_timestamp"}
        renamed = features.rename({name: f"{view}__{name}" for name in features.columns if name not in kept})
        rows = rows.join_asof(renamed, on="event_timestamp", by=KEYS[view], check_sortedness=False)
    return rows


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def source_with(folder: Path, **replaced: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    """The published files, some of them changed: log=..., users=..., videos=..., history=..."""
    folder.mkdir()
    for name, file in zip(("log", "users", "videos", "history"), FILES, strict=True):
        if name in replaced:
            replaced[name](pl.read_parquet(SOURCE / file)).write_parquet(folder / file)
        else:
            (folder / file).symlink_to(SOURCE.resolve() / file)
    return folder


# What the tables hold


def test_only_exact_duplicates_are_dropped(summary: KuaiRandSummary, impressions: pl.DataFrame) -> None:
    raw = pl.read_parquet(SOURCE / LOG)
    assert (summary.impressions, summary.duplicates) == (92_034, 2_750)
    assert raw.height == summary.impressions + summary.duplicates
    columns = ["user_id", "video_id", "time_ms", "tab", "duration_ms", *LABELS]
    written = impressions.with_columns(pl.col("event_timestamp").dt.epoch("ms").alias("time_ms")).select(
        columns
    )
    published = raw.unique().select(columns).cast(dict(written.schema))
    assert_frame_equal(written.sort(columns), published.sort(columns))
    assert impressions["impression_id"].to_list() == list(range(92_034))
    assert impressions["event_timestamp"].is_sorted()


def test_days_are_cut_at_midnight_in_beijing(project: Path, impressions: pl.DataFrame) -> None:
    split = load_config(project).split
    moment = impressions["event_timestamp"]
    train, test = (moment < split.valid).sum(), (moment >= split.test).sum()
    assert (train, len(moment) - train - test, test) == (42_785, 13_466, 35_783)
    local = (moment.dt.epoch("ms") + BEIJING_MS) // (3600 * 1000) % 24
    assert impressions["hour"].equals(local.alias("hour"), null_equal=False)


@pytest.mark.parametrize(("who", "key"), [("user", "user_id"), ("video", "video_id")])
@pytest.mark.parametrize("pace", ["live", "daily"])
def test_activity_counts_only_what_came_before(
    project: Path, log: pl.DataFrame, sample: pl.DataFrame, who: str, key: str, pace: str
) -> None:
    view = f"{who}_activity_{pace}"
    for row in known_at(project, sample, view).iter_rows(named=True):
        now = round(row["event_timestamp"].timestamp() * 1000)
        midnight = (now + BEIJING_MS) // DAY_MS * DAY_MS - BEIJING_MS
        until = now if pace == "live" else midnight
        before = log.filter((pl.col(key) == row[key]) & (pl.col("time_ms") < until))
        expected = {"impressions": before.height} | {
            count: before[label].cast(pl.Int64).sum() for count, label in COUNTED.items()
        }
        if pace == "daily" and midnight < log["time_ms"].min():
            expected = dict.fromkeys(expected, 0)
        assert {name: row[f"{view}__{name}"] for name in expected} == expected


@pytest.mark.parametrize("view", ["user_activity_live", "video_activity_daily"])
def test_rates_start_at_a_guess_and_approach_the_share(project: Path, view: str) -> None:
    counts = table(project, view)
    unseen = counts.filter(pl.col("impressions") == 0)
    assert unseen["click_rate"].n_unique() == 1
    guess = unseen["click_rate"][0]
    between = counts.filter(pl.col("impressions") > 0).select(
        share=pl.col("clicks") / pl.col("impressions"), rate="click_rate"
    )
    low, high = pl.min_horizontal("share", pl.lit(guess)), pl.max_horizontal("share", pl.lit(guess))
    assert between.select((pl.col("rate") >= low - 1e-6) & (pl.col("rate") <= high + 1e-6)).to_series().all()
    busiest = counts.sort("impressions").tail(1).row(0, named=True)
    share = busiest["clicks"] / busiest["impressions"]
    assert abs(busiest["click_rate"] - share) < abs(guess - share) / 2


def test_priors_count_the_histories(project: Path) -> None:
    history = pl.read_parquet(SOURCE / HISTORY)
    first_tag = {
        row["video_id"]: int(row["tag"].split(",")[0]) if row["tag"] else 0
        for row in pl.read_parquet(SOURCE / VIDEOS).iter_rows(named=True)
    }
    watched = Counter(history["watch_seq"].explode().to_list())
    for row in table(project, "video_history_priors").sample(20, seed=3).iter_rows(named=True):
        assert row["watches"] == watched[row["video_id"]]
    shares = table(project, "user_tag_priors").rows_by_key(["user_id", "tag_id"], named=True, unique=True)
    priors = table(project, "user_history_priors").rows_by_key("user_id", named=True, unique=True)
    for row in history.filter(pl.col("like_seq").list.len() > 3).sample(30, seed=4).iter_rows(named=True):
        user = row["user_id"]
        assert priors[user]["history_len"] == row["history_len"]
        assert priors[user]["likes"] == len(row["like_seq"])
        assert priors[user]["long_views"] == len(row["long_watch_seq"])
        for sequence, share in (("watch_seq", "watch_share"), ("like_seq", "like_share")):
            tags = [first_tag[video] for video in row[sequence]]
            for tag in set(tags):
                assert shares[user, tag][share] == pytest.approx(tags.count(tag) / len(tags))


# When it was known


def test_no_label_reaches_an_impression_of_its_moment_or_before(
    project: Path, impressions: pl.DataFrame, tmp_path: Path
) -> None:
    """With every label from some moment on turned over, features up to that moment stay and later ones move."""
    middle = impressions.filter(pl.len().over("user_id", "event_timestamp") > 1)["event_timestamp"].sort()
    moment = middle[len(middle) // 2]
    later = pl.col("time_ms") >= round(moment.timestamp() * 1000)
    flipped = [
        pl.when(later).then(1 - pl.col(label)).otherwise(pl.col(label)).cast(pl.Int8).alias(label)
        for label in (*COUNTED.values(), "is_follow")
    ]
    source = source_with(tmp_path / "source", log=lambda frame: frame.with_columns(flipped))
    other = import_kuairand(source, tmp_path / "other").project
    before = impressions.filter(pl.col("event_timestamp") <= moment).drop(LABELS)
    assert_frame_equal(known_at(project, before, *KEYS), known_at(other, before, *KEYS))
    after = impressions.filter(pl.col("event_timestamp") > moment).drop(LABELS)
    assert not known_at(project, after, *KEYS).equals(known_at(other, after, *KEYS))


def test_histories_are_known_once_they_end(project: Path, impressions: pl.DataFrame) -> None:
    ends = pl.read_parquet(SOURCE / HISTORY).select(pl.col("user_id").cast(pl.Int64), "last_time_ms")
    joined = known_at(project, impressions, "user_history").join(ends, on="user_id", how="left")
    ended = (pl.col("last_time_ms") < pl.col("event_timestamp").dt.epoch("ms")).fill_null(False)
    seen = pl.col("user_history__watch_seq").is_not_null()
    assert joined.select((ended == seen).all()).item()
    assert joined.filter(~seen, pl.col("last_time_ms").is_not_null()).height > 0
    for view in ("user_profile", "user_history_priors", "video_history_priors", "user_tag_priors"):
        assert table(project, view)["event_timestamp"].unique().to_list() == [HISTORY_END]


def test_no_outcome_and_no_late_snapshot_is_a_feature(project: Path) -> None:
    forbidden = {*LABELS, "profile_stay_time", "comment_stay_time", "is_profile_enter", "visible_status"}
    for view in KEYS:
        assert not forbidden & set(table(project, view).columns)


def test_candidates_are_new_pairs_after_the_log(project: Path, impressions: pl.DataFrame) -> None:
    candidates = table(project, "candidates")
    assert not candidates.select("user_id", "video_id").is_duplicated().any()
    assert candidates["event_timestamp"].min() > impressions["event_timestamp"].max()
    assert set(candidates.columns) == set(impressions.columns) - {*LABELS, "impression_id"}
    facts = impressions.select("video_id", "tag_id", "duration_ms").unique()
    matched = candidates.join(facts, on=["video_id", "tag_id", "duration_ms"], how="semi")
    assert matched.height == candidates.height


# The project as Feast sees it


@pytest.fixture(scope="module")
def applied(project: Path) -> Path:
    command = [sys.executable, "-c", "from feast.cli.cli import cli; cli()", "-c", "feature_repo", "apply"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return project


@pytest.mark.parametrize(
    ("service", "paces"),
    [
        ("ranking_live_v1", ("live", "live")),
        ("ranking_frozen_v1", ("daily", "daily")),
        ("ranking_mixed_v1", ("daily", "live")),
    ],
)
def test_feast_retrieves_what_was_known(
    applied: Path, impressions: pl.DataFrame, service: str, paces: tuple[str, str]
) -> None:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(applied / "feature_repo"))
    rows = impressions.select("impression_id", "user_id", "video_id", "tag_id", "event_timestamp").sample(
        500, seed=5
    )
    job = store.get_historical_features(
        entity_df=rows.to_pandas(), features=store.get_feature_service(service), full_feature_names=True
    )
    retrieved = pl.from_arrow(job.to_arrow())
    assert isinstance(retrieved, pl.DataFrame)
    activity = {f"{who}_activity_{pace}" for who, pace in zip(("user", "video"), paces, strict=True)}
    views = [view for view in KEYS if "activity" not in view or view in activity]
    expected = known_at(applied, rows, *views).sort("impression_id")
    assert_frame_equal(
        retrieved.sort("impression_id"),
        expected,
        check_column_order=False,
        check_dtypes=False,
        check_exact=True,
    )


def test_the_model_reads_the_features_in_their_roles(applied: Path) -> None:
    from mtl_rank.workflow import inputs

    roles = {spec.name: spec.role for spec in inputs(applied).inputs}
    assert {"user_id", "video_id", "tag_id", "tab", "hour"} <= {
        n for n, r in roles.items() if r == "categorical"
    }
    assert roles["user_profile__onehot_feat3"] == roles["video_facts__author_id"] == "categorical"
    assert roles["user_profile__fans_user_num"] == roles["duration_ms"] == "dense"
    assert all(role == "dense" for name, role in roles.items() if "activity" in name or "_priors" in name)
    assert roles["user_history__watch_seq"] == "sequence"
    assert roles["video_facts__tags"] == "bag"
    assert not {"video_facts__first_tag", "video_facts__video_duration"} & set(roles)


# Whole or not at all


def test_two_imports_are_equal_byte_for_byte(tmp_path: Path) -> None:
    first = import_kuairand(SOURCE, tmp_path / "first").project
    (tmp_path / "second").mkdir()
    second = import_kuairand(SOURCE, tmp_path / "second").project
    assert tree(first) == tree(second)
    assert {"mtlrank.yaml", "README.md", "feature_repo/services.py"} <= set(tree(first))


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("keep")
    with pytest.raises(MtlRankError, match=r"taken.*not an empty folder"):
        import_kuairand(SOURCE, taken)
    with pytest.raises(MtlRankError, match=r"mine\.txt.*not an empty folder"):
        import_kuairand(SOURCE, taken / "mine.txt")
    with pytest.raises(MtlRankError, match="cannot be made"):
        import_kuairand(SOURCE, taken / "mine.txt" / "deeper" / "still")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine.txt"]
    assert (taken / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("step", ["reading", "writing candidates", "writing user_tag_priors"])
def test_an_interrupted_import_leaves_nothing(tmp_path: Path, exists: bool, step: str) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()

    def interrupt(line: str) -> None:
        if line.startswith(step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_kuairand(SOURCE, out, interrupt)
    assert list(tmp_path.rglob("*")) == ([out] if exists else [])


def drop(column: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.drop(column)


def put(column: str, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.with_columns(pl.lit(value).alias(column))


@pytest.mark.parametrize(
    ("table_name", "change", "file", "word"),
    [
        ("log", drop("is_like"), LOG, "is_like"),
        ("log", put("is_click", 2), LOG, "is_click"),
        ("log", put("time_ms", None), LOG, "time_ms"),
        ("log", put("user_id", "someone"), LOG, "user_id"),
        ("log", lambda frame: frame.head(0), LOG, "no rows"),
        ("users", drop("onehot_feat7"), USERS, "onehot_feat7"),
        ("users", put("user_id", 1), USERS, "user_id"),
        ("history", put("user_id", None), HISTORY, "user_id"),
        ("videos", put("tag", "cats,dogs"), VIDEOS, "tag"),
        ("videos", put("upload_dt", "yesterday"), VIDEOS, "upload_dt"),
        ("history", put("watch_seq", 3), HISTORY, "watch_seq"),
    ],
)
def test_a_wrong_source_is_named(
    tmp_path: Path, table_name: str, change: Callable[[pl.DataFrame], pl.DataFrame], file: str, word: str
) -> None:
    source = source_with(tmp_path / "source", **{table_name: change})
    with pytest.raises(MtlRankError) as caught:
        import_kuairand(source, tmp_path / "out")
    message = str(caught.value)
    assert file in message
    assert word in message
    assert len(message.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    source = source_with(tmp_path / "source")
    (source / HISTORY).unlink()
    with pytest.raises(MtlRankError, match=HISTORY):
        import_kuairand(source, tmp_path / "out")
    (source / HISTORY).write_bytes(b"not a parquet file")
    with pytest.raises(MtlRankError, match=HISTORY):
        import_kuairand(source, tmp_path / "out")
    with pytest.raises(MtlRankError, match=LOG):
        import_kuairand(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
