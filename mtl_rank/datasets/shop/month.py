"""The simulated month: 2026-03-01 to 2026-03-30, UTC."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FIRST_DAY = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 30
WEEKS = (DAYS + 6) // 7
HOUR_MICROSECONDS = 3_600_000_000
DAY_MICROSECONDS = 24 * HOUR_MICROSECONDS
TIMESTAMP = pa.timestamp("us", tz="UTC")


def rows_per_day(rows: int) -> NDArray[np.int64]:
    """How the rows fall on the days: weekends a sixth busier, exact in total."""
    weekday = (np.arange(DAYS) + FIRST_DAY.weekday()) % 7
    share = np.where(weekday >= 5, 7.0, 6.0)
    ends = np.round(np.cumsum(share) / share.sum() * rows).astype(np.int64)
    counts: NDArray[np.int64] = np.diff(ends, prepend=0)
    return counts


def timestamps(microseconds: NDArray[np.int64]) -> pa.Array:
    """Microseconds since the month began, as timestamps."""
    epoch = int(FIRST_DAY.timestamp()) * 1_000_000
    return pa.array(microseconds + epoch, TIMESTAMP)
