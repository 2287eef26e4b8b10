"""Priors: what the histories up to 24 April say about each video, each user, and each user's taste in tags.

Histories keep the last 50 watched, long-watched and liked videos of each user, so all counts are of those.
"""

import polars as pl

_WEIGHT = 10.0
_SEQUENCES = {"watches": "watch_seq", "long_views": "long_watch_seq", "likes": "like_seq"}


def video_priors(history: pl.DataFrame, videos: pl.DataFrame) -> pl.DataFrame:
    """One row per video: watches, long_views, likes over all histories, and long_view_rate, like_rate."""
    counted = videos.select("video_id")
    for count, sequence in _SEQUENCES.items():
        watched = _pairs(history, sequence).group_by("video_id").agg(pl.len().alias(count))
        counted = counted.join(watched, on="video_id", how="left")
    return _with_rates(counted, "watches").sort("video_id")


def user_priors(history: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    """One row per user: history_len, long_views, likes, long_view_rate, like_rate."""
    counted = history.select(
        "user_id",
        "history_len",
        pl.col("long_watch_seq").list.len().alias("long_views"),
        pl.col("like_seq").list.len().alias("likes"),
    )
    everyone = users.select("user_id").join(counted, on="user_id", how="left")
    return _with_rates(everyone, "history_len").sort("user_id")


def user_tag_priors(history: pl.DataFrame, first_tags: pl.DataFrame) -> pl.DataFrame:
    """How much of a user's history carries a tag: only pairs that occur.

    first_tags: video_id, tag_id. Returns user_id, tag_id, watches, long_views, likes, and the shares
    watch_share, long_view_share, like_share in [0, 1] of each of the user's sequences.
    """
    pairs = pl.concat(
        _pairs(history, sequence).select("user_id", "video_id", pl.lit(count).alias("kind"))
        for count, sequence in _SEQUENCES.items()
    ).join(first_tags, on="video_id")
    counted = pairs.group_by("user_id", "tag_id").agg(
        (pl.col("kind") == count).sum().cast(pl.Float32).alias(count) for count in _SEQUENCES
    )
    lengths = history.select(
        "user_id",
        *(pl.col(sequence).list.len().alias(f"all_{count}") for count, sequence in _SEQUENCES.items()),
    )
    shares = [
        (pl.col(count) / pl.max_horizontal(f"all_{count}", 1)).cast(pl.Float32).alias(share)
        for count, share in zip(_SEQUENCES, ("watch_share", "long_view_share", "like_share"), strict=True)
    ]
    return (
        counted.join(lengths, on="user_id")
        .select("user_id", "tag_id", *_SEQUENCES, *shares)
        .sort("user_id", "tag_id")
    )


def _pairs(history: pl.DataFrame, sequence: str) -> pl.DataFrame:
    return (
        history.select("user_id", pl.col(sequence).alias("video_id"))
        .filter(pl.col("video_id").list.len() > 0)
        .explode("video_id")
    )


def _with_rates(counted: pl.DataFrame, total: str) -> pl.DataFrame:
    """Missing counts are zeros; rates are drawn towards the overall rate with the weight of ten views."""
    filled = counted.with_columns(pl.exclude("user_id", "video_id").fill_null(0).cast(pl.Float32))
    return filled.with_columns(
        (
            (pl.col(count) + _WEIGHT * pl.col(count).sum() / pl.col(total).sum()) / (pl.col(total) + _WEIGHT)
        ).alias(rate)
        for count, rate in (("long_views", "long_view_rate"), ("likes", "like_rate"))
    )
