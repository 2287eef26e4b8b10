"""When things became known. Event time is UTC; the app's day is Beijing's."""

from datetime import UTC, datetime

import polars as pl

UTC_MICROSECONDS = pl.Datetime("us", "UTC")

# The end of 24 April in Beijing: the histories stop there, and the undated user snapshot is assumed to be
# of then.
HISTORY_END = datetime(2022, 4, 24, 16, tzinfo=UTC)


def from_ms(column: str) -> pl.Expr:
    """Milliseconds since the epoch as microseconds UTC."""
    return pl.from_epoch(column, "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC")


def just_after(column: str) -> pl.Expr:
    """One millisecond (the clock's tick) later: a join at the very moment of the event does not see it."""
    return from_ms(column).dt.offset_by("1ms")


def beijing_hour(moment: pl.Expr) -> pl.Expr:
    """Hour of the day in Beijing, 0-23."""
    return moment.dt.convert_time_zone("Asia/Shanghai").dt.hour().cast(pl.Int64)


def next_beijing_midnight(moment: pl.Expr) -> pl.Expr:
    """The first midnight in Beijing later than `moment`, in UTC."""
    local = moment.dt.convert_time_zone("Asia/Shanghai")
    return local.dt.truncate("1d").dt.offset_by("1d").dt.convert_time_zone("UTC")
