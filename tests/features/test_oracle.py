"""Random histories: our store gives what Feast's own DuckDB store gives, row for row, in any configuration."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureView
from feast.infra.registry.registry import Registry
from feast.types import Float64, Int64, String
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import at, feasts, ours, parquet, view

KEYS = 12
SPAN = 20
"""Histories and entity rows fall into so many seconds: ties and equal times are common."""

zones = st.sampled_from([None, "UTC", "Asia/Kolkata", "America/New_York"])


@st.composite
def histories(draw: st.DrawFn, created: bool) -> pd.DataFrame:
    """Feature rows of KEYS users in a few categories, out of order, with nulls everywhere.

    Feast takes any of two rows that no column tells apart, so there are none.
    """
    rows = draw(st.integers(0, 120))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frame = pd.DataFrame(
        {
            "user": pd.array(numbers.integers(0, KEYS, rows), "Int64"),
            "category": pd.array(numbers.choice(["a", "b"], rows), "string"),
            "ts": [at(t) for t in numbers.integers(0, SPAN, rows)],
            "created": [at(t) for t in numbers.integers(0, 2 * SPAN, rows)],
            "x": numbers.random(rows).round(3),
            "name": pd.array(numbers.choice(["p", "q", "r"], rows), "string"),
        }
    ).astype({"ts": "datetime64[us, UTC]", "created": "datetime64[us, UTC]"})
    for column, share in {
        "user": 0.05,
        "category": 0.05,
        "ts": 0.05,
        "created": 0.1,
        "x": 0.2,
        "name": 0.2,
    }.items():
        frame.loc[numbers.random(rows) < share, column] = None
    if not created:
        frame = frame.drop(columns="created")
    return frame.drop_duplicates(["user", "category", "ts", "created"][: 3 + created]).drop_duplicates(
        ["user", "ts", "created"][: 2 + created]
    )


@st.composite
def entity_rows(draw: st.DrawFn) -> pd.DataFrame:
    """Rows with keys that have a history or none, repeated rows, null keys and times before, in and after it."""
    rows = draw(st.integers(1, 60))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    times = pd.Series([at(t) for t in numbers.integers(-3, SPAN + 5, rows)], dtype="datetime64[us, UTC]")
    zone = draw(zones)
    frame = pd.DataFrame(
        {
            "row": np.arange(rows),
            "buyer": pd.array(numbers.integers(0, KEYS + 2, rows), "Int64"),
            "category": pd.array(numbers.choice(["a", "b", "c"], rows), "string"),
            "event_timestamp": times.dt.tz_localize(None) if zone is None else times.dt.tz_convert(zone),
        }
    )
    for column in ("buyer", "category"):
        frame.loc[numbers.random(rows) < 0.1, column] = None
    return frame


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    created = draw(st.booleans())
    return {
        "history": draw(histories(created)),
        "rows": draw(entity_rows()),
        "created": created,
        "ttls": [draw(st.sampled_from([None, 0, 1, 3, 10])) for _ in range(2)],
        "from_created": draw(st.booleans()),
        "full_feature_names": True,
    }


def views_of(world: dict[str, Any], folder: Path) -> list[FeatureView]:
    """One view on the user, read under another name and with mapped fields, and one on user and category."""
    created = "created" if world["created"] else None
    mapped = world["history"].rename(columns={"x": "x_raw", "ts": "ts_raw"})
    one = parquet(
        folder / "one.parquet",
        mapped,
        created_timestamp_column=created,
        field_mapping={"x_raw": "x", "ts_raw": "ts"},
    )
    two = parquet(folder / "two.parquet", world["history"], created_timestamp_column=created)
    ttls = [None if ttl is None else timedelta(seconds=ttl) for ttl in world["ttls"]]
    features = {"x": Float64, "name": String}
    by_user = view(one, {"user": Int64}, features, ttls[0], "by_user").with_name("buyer_stats")
    by_pair = view(two, {"user": Int64, "category": String}, features, ttls[1], "by_pair")
    return [
        by_user.with_join_key_map({"user": "buyer"}),
        by_pair.with_join_key_map({"user": "buyer", "category": "category"}),
    ]


@pytest.mark.parametrize(
    "limits",
    [{}, {"join_rows": 25, "fetch_rows": 10}, {"join_rows": 60}],
    ids=["whole", "small parts", "parts"],
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(world=worlds())
def test_equals_feasts_own_store(
    world: dict[str, Any], limits: dict[str, int], tmp_path: Path, registry: Registry
) -> None:
    """Each example holds a dozen keys with a history each, so hundreds of histories are compared."""
    views = views_of(world, tmp_path)
    options = {"full_feature_names": True, "filter_by_created_timestamp": world["from_created"]}
    expected = feasts(world["rows"], views, registry, **options).sort_values("row", ignore_index=True)
    actual = ours(world["rows"], views, registry, **options, **limits).to_df()
    pd.testing.assert_frame_equal(actual, expected)
