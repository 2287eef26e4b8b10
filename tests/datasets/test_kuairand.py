"""The KuaiRand project: what it holds and when it was known."""

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from kuairand_source import HISTORY, LOG, SOURCE, VIDEOS, needs_source, source_with
from polars.testing import assert_frame_equal

from mtl_rank.config import load_config
from mtl_rank.datasets.kuairand import KuaiRandSummary, import_kuairand

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

pytestmark = needs_source


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
