"""From the published files to a project that `mtlrank train` can read."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from mtl_rank.datasets.kuairand.activity import activity
from mtl_rank.datasets.kuairand.clock import (
    HISTORY_END,
    UTC_MICROSECONDS,
    beijing_hour,
    from_ms,
    just_after,
    next_beijing_midnight,
)
from mtl_rank.datasets.kuairand.history import user_priors, user_tag_priors, video_priors
from mtl_rank.datasets.kuairand.sources import LABELS, Sources, read_sources
from mtl_rank.errors import MtlRankError

NO_TAG = 0  # published tags start at 1
_CANDIDATE_USERS, _CANDIDATE_VIDEOS = 100, 50


@dataclass(frozen=True)
class KuaiRandSummary:
    """What an import wrote.

    duplicates: rows of the log dropped as exact repeats. tables: rows per file in `project`/data.
    """

    project: Path
    impressions: int
    duplicates: int
    users: int
    videos: int
    tables: dict[str, int]


def import_kuairand(
    source: Path, out: Path, progress: Callable[[str], None] | None = None
) -> KuaiRandSummary:
    """Write a complete project for KuaiRand-Pure into `out`: mtlrank.yaml, feature_repo/ and data/.

    source: the folder with the published parquet files. out: a folder that is new or empty. progress: told
    one short line per step. The project appears in `out` only once it is complete.

    Raises MtlRankError when `out` holds something or is no folder, and DataError when a source file is
    missing or wrong.
    """
    tell = progress or (lambda _: None)
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MtlRankError(f"{out}: is not an empty folder\ngive a new folder, nothing is overwritten")
    tell(f"reading {source}")
    sources = read_sources(source)

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MtlRankError(f"{out}: its folder cannot be made ({error.strerror})") from error
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        project = Path(scratch) / "project"
        template = Path(__file__).parent / "template"
        shutil.copytree(template, project, ignore=shutil.ignore_patterns("__pycache__"))
        (project / "data").mkdir()
        rows = {}
        for name, table in _tables(sources).items():
            tell(f"writing {name}")
            table.write_parquet(project / "data" / f"{name}.parquet", compression="zstd")
            rows[name] = table.height
        _publish(project, out)

    return KuaiRandSummary(
        project=out,
        impressions=sources.log.height,
        duplicates=sources.duplicates,
        users=sources.log["user_id"].n_unique(),
        videos=sources.log["video_id"].n_unique(),
        tables=rows,
    )


def _publish(project: Path, out: Path) -> None:
    if not out.exists():
        project.rename(out)
        return
    # An existing empty folder may be someone's current one: fill it, last with what makes it a project.
    for part in sorted(project.iterdir(), key=lambda path: path.name == "mtlrank.yaml"):
        shutil.move(part, out / part.name)


def _tables(sources: Sources) -> dict[str, pl.DataFrame]:
    log, users, videos, history = sources.log, sources.users, sources.videos, sources.history
    live, daily = just_after("time_ms"), next_beijing_midnight(from_ms("time_ms"))
    first_tags = videos.select("video_id", pl.col("tags").list.first().fill_null(NO_TAG).alias("tag_id"))
    impressions = _impressions(log, first_tags)
    return {
        "impressions": impressions,
        "candidates": _candidates(impressions, videos, first_tags),
        "user_profile": _stamped(users),
        "video_facts": _video_facts(videos),
        "user_activity_live": activity(log, "user_id", users["user_id"], live),
        "user_activity_daily": activity(log, "user_id", users["user_id"], daily),
        "video_activity_live": activity(log, "video_id", videos["video_id"], live),
        "video_activity_daily": activity(log, "video_id", videos["video_id"], daily),
        "user_history": _user_history(history),
        "user_history_priors": _stamped(user_priors(history, users)),
        "video_history_priors": _stamped(video_priors(history, videos)),
        "user_tag_priors": _stamped(user_tag_priors(history, first_tags)),
    }


def _stamped(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.lit(HISTORY_END, UTC_MICROSECONDS).alias("event_timestamp"))


def _impressions(log: pl.DataFrame, first_tags: pl.DataFrame) -> pl.DataFrame:
    return (
        log.with_row_index("impression_id")
        .join(first_tags, on="video_id", how="left", maintain_order="left")
        .with_columns(from_ms("time_ms").alias("event_timestamp"))
        .select(
            pl.col("impression_id").cast(pl.Int64),
            "user_id",
            "video_id",
            pl.col("tag_id").fill_null(NO_TAG),
            "event_timestamp",
            "tab",
            beijing_hour(pl.col("event_timestamp")).alias("hour"),
            "duration_ms",
            *LABELS,
            "play_time_ms",
        )
    )


def _video_facts(videos: pl.DataFrame) -> pl.DataFrame:
    uploaded = pl.col("upload_dt").cast(pl.Datetime("us")).dt.replace_time_zone("Asia/Shanghai")
    return videos.select(
        "video_id",
        uploaded.dt.convert_time_zone("UTC").alias("event_timestamp"),
        "author_id",
        "video_type",
        "upload_type",
        "music_id",
        "music_type",
        "video_duration",
        "server_width",
        "server_height",
        pl.col("tags").list.first().alias("first_tag"),
        "tags",
    ).sort("video_id")


def _user_history(history: pl.DataFrame) -> pl.DataFrame:
    return history.select(
        "user_id",
        just_after("last_time_ms").alias("event_timestamp"),
        "watch_seq",
        "long_watch_seq",
        "like_seq",
    ).sort("user_id")


def _candidates(impressions: pl.DataFrame, videos: pl.DataFrame, first_tags: pl.DataFrame) -> pl.DataFrame:
    """The last day's busiest users and videos, crossed, at noon of the day after the log."""
    end = impressions.select(next_beijing_midnight(pl.col("event_timestamp").max())).item()
    last_day = impressions.filter(pl.col("event_timestamp") >= end - timedelta(days=1))

    def busiest(key: str, count: int) -> pl.DataFrame:
        return (
            last_day.group_by(key).len().sort(["len", key], descending=[True, False]).head(count).select(key)
        )

    noon = pl.lit(end + timedelta(hours=12), UTC_MICROSECONDS)
    return (
        busiest("user_id", _CANDIDATE_USERS)
        .join(busiest("video_id", _CANDIDATE_VIDEOS), how="cross")
        .join(first_tags, on="video_id", how="left", maintain_order="left")
        .join(videos.select("video_id", "video_duration"), on="video_id", how="left", maintain_order="left")
        .select(
            "user_id",
            "video_id",
            "tag_id",
            noon.alias("event_timestamp"),
            pl.lit(1, pl.Int64).alias("tab"),
            beijing_hour(noon).alias("hour"),
            pl.col("video_duration").fill_null(0).cast(pl.Int64).alias("duration_ms"),
        )
    )
