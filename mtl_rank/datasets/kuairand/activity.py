"""Counts of past behaviour per user or per video, from the log itself."""

import polars as pl

from mtl_rank.datasets.kuairand.clock import UTC_MICROSECONDS, from_ms

_COUNTED = {"clicks": "is_click", "long_views": "long_view", "likes": "is_like"}

# Smoothing: a rate starts at a round guess worth this many impressions. The guess is a constant,
# because a mean over the log would carry the labels of later impressions.
_WEIGHT = 10.0
_GUESS = {"clicks": 0.4, "long_views": 0.3, "likes": 0.02}


def activity(log: pl.DataFrame, key: str, keys: pl.Series, known_at: pl.Expr) -> pl.DataFrame:
    """Cumulative counts and smoothed rates of the impressions known at each moment.

    log: impressions with time_ms and labels. key: `user_id` or `video_id`. keys: everyone who gets a row of
    zeros at the start of the log. known_at: when an impression's labels count as known, later than itself.

    Returns key, event_timestamp, impressions, clicks, long_views, likes (Float32) and a rate for each label:
    one row per key and moment at which its counts change.
    """
    start = log.select(from_ms("time_ms").min()).item()
    counts = ["impressions", *_COUNTED]
    zeros = pl.DataFrame({key: keys.unique()}).select(
        pl.col(key).cast(pl.Int64),
        pl.lit(start, UTC_MICROSECONDS).alias("event_timestamp"),
        *(pl.lit(0, pl.Int64).alias(count) for count in counts),
    )
    changes = log.group_by(key, known_at.alias("event_timestamp")).agg(
        pl.len().cast(pl.Int64).alias("impressions"),
        *(pl.col(label).cast(pl.Int64).sum().alias(count) for count, label in _COUNTED.items()),
    )
    return (
        pl.concat([zeros, changes])
        .sort(key, "event_timestamp")
        .with_columns(pl.col(counts).cum_sum().over(key).cast(pl.Float32))
        .with_columns(
            ((pl.col(count) + _WEIGHT * guess) / (pl.col("impressions") + _WEIGHT))
            .cast(pl.Float32)
            .alias(f"{count.removesuffix('s')}_rate")
            for count, guess in _GUESS.items()
        )
    )
