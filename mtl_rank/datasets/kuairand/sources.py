"""The four published files: read, checked, and with exact duplicates gone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import polars as pl
from polars.datatypes import DataTypeClass

from mtl_rank.errors import DataError

LABELS = ("is_click", "long_view", "is_like", "is_follow")

Columns: TypeAlias = dict[str, pl.DataType | DataTypeClass]

_ONEHOT: Columns = {f"onehot_feat{i}": pl.Int64 for i in range(18)}

# is_lowactive_period is left out because it is 0 everywhere, visible_status because it is a later snapshot.
_FILES: dict[str, tuple[str, Columns]] = {
    "log": (
        "log_standard_20220425_20220430.parquet",
        {
            "user_id": pl.Int64,
            "video_id": pl.Int64,
            "time_ms": pl.Int64,
            "tab": pl.Int64,
            "duration_ms": pl.Int64,
            **dict.fromkeys(LABELS, pl.Int8),
            "play_time_ms": pl.Int64,
        },
    ),
    "users": (
        "user_features_pure.parquet",
        {
            "user_id": pl.Int64,
            "user_active_degree": pl.String,
            "is_live_streamer": pl.Int64,
            "is_video_author": pl.Int64,
            "follow_user_num": pl.Int64,
            "follow_user_num_range": pl.String,
            "fans_user_num": pl.Int64,
            "fans_user_num_range": pl.String,
            "friend_user_num": pl.Int64,
            "friend_user_num_range": pl.String,
            "register_days": pl.Int64,
            "register_days_range": pl.String,
            **_ONEHOT,
        },
    ),
    "videos": (
        "video_features_basic_pure.parquet",
        {
            "video_id": pl.Int64,
            "author_id": pl.Int64,
            "video_type": pl.String,
            "upload_dt": pl.String,
            "upload_type": pl.String,
            "video_duration": pl.Float32,
            "server_width": pl.Float32,
            "server_height": pl.Float32,
            "music_id": pl.Int64,
            "music_type": pl.Int64,
            "tag": pl.String,
        },
    ),
    "history": (
        "user_history_until_20220424.parquet",
        {
            "user_id": pl.Int64,
            "history_len": pl.Int64,
            "last_time_ms": pl.Int64,
            "watch_seq": pl.List(pl.Int64),
            "long_watch_seq": pl.List(pl.Int64),
            "like_seq": pl.List(pl.Int64),
        },
    ),
}


@dataclass(frozen=True)
class Sources:
    """The published tables with the columns the project uses.

    log: one row per impression, in the order of time, exact duplicates dropped.
    users, videos, history: at most one row per user, video, user. Of videos,
        upload_dt is a Date and tags a list of Int64.
    duplicates: how many rows of the log were dropped.
    """

    log: pl.DataFrame
    users: pl.DataFrame
    videos: pl.DataFrame
    history: pl.DataFrame
    duplicates: int


def read_sources(folder: Path) -> Sources:
    """Read and check the four files of `folder`.

    Raises DataError naming the file and the column when a file is missing or unreadable, lacks a column, or
    holds a value that cannot be right.
    """
    paths = {table: folder / name for table, (name, _) in _FILES.items()}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"{folder}: no {', '.join(missing)} there\n"
            "give the folder that holds the four KuaiRand-Pure parquet files"
        )
    tables = {table: _read(path, _FILES[table][1]) for table, path in paths.items()}

    # Duplicates are rows equal in every published column, so they go before any column does.
    whole_log = tables["log"]
    log = whole_log.unique(maintain_order=True)
    tables["log"] = log.sort("time_ms", "user_id", "video_id", maintain_order=True)
    for table, key in (("users", "user_id"), ("videos", "video_id"), ("history", "user_id")):
        if tables[table][key].is_duplicated().any() or tables[table][key].has_nulls():
            raise DataError(f"{paths[table]}: column {key!r} has repeated or empty values; it must be unique")
    selected = {table: frame.select(*_FILES[table][1]) for table, frame in tables.items()}
    _check_log(paths["log"], selected["log"])
    selected["videos"] = _parsed_videos(paths["videos"], selected["videos"])
    return Sources(**selected, duplicates=whole_log.height - log.height)


def _read(path: Path, columns: Columns) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise DataError(f"{path}: lacks the column {', '.join(absent)}\nis this a file of KuaiRand-Pure?")
    for column, dtype in columns.items():
        try:
            frame = frame.with_columns(pl.col(column).cast(dtype))
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{path}: column {column!r} is {frame.schema[column]} and cannot be read as {dtype}"
            ) from error
    return frame


def _parsed_videos(path: Path, videos: pl.DataFrame) -> pl.DataFrame:
    """Two columns are published as text: a date, and numbers parted by commas."""
    parsers = {
        "upload_dt": (pl.col("upload_dt").str.to_date("%Y-%m-%d"), "dates like 2022-04-09"),
        "tag": (pl.col("tag").str.split(",").cast(pl.List(pl.Int64)), "numbers parted by commas"),
    }
    for column, (parsed, expected) in parsers.items():
        try:
            videos = videos.with_columns(parsed)
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{path}: column {column!r} holds something else than {expected}") from error
    return videos.rename({"tag": "tags"})


def _check_log(path: Path, log: pl.DataFrame) -> None:
    if log.is_empty():
        raise DataError(f"{path}: has no rows")
    for column in log.columns:
        if log[column].null_count():
            raise DataError(f"{path}: column {column!r} has empty values; every impression needs one")
    for label in LABELS:
        if not log[label].is_in([0, 1]).all():
            raise DataError(f"{path}: column {label!r} holds other values than 0 and 1")
