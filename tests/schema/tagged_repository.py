"""One feature repository of every kind of view and every mistake in a tag, applied once."""

from datetime import UTC, datetime, timedelta

import feast
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
from tag_mistakes import MISTAKES

KEYS = ("user_id", "item_id", "session_id", "query")


def parquet(folder, name):
    """A file with every join key; the registry infers the types of the keys from it."""
    columns = {"event_timestamp": [datetime(2026, 1, 1, tzinfo=UTC)]}
    columns |= {key: ["q"] if key == "query" else [1] for key in KEYS}
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns), path)
    return FileSource(name=f"{name}_source", path=str(path), timestamp_field="event_timestamp")


def apply_repository(folder):
    """A FeatureStore over `folder` with a service of everything, and one per mistake."""
    source = parquet(folder, "all")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, tags={"mtlrank.dim": "8"})
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64, tags={"team": "shop"})
    session = Entity(
        name="session", join_keys=["session_id"], value_type=ValueType.INT64, tags={"mtlrank.role": "ignore"}
    )
    dense_key = Entity(
        name="query", join_keys=["query"], value_type=ValueType.STRING, tags={"mtlrank.role": "dense"}
    )

    def view(name, fields, entities=(user,), **options):
        schema = [Field(name=n, dtype=dtype, tags=tags) for n, dtype, tags in fields]
        return FeatureView(
            name=name,
            entities=list(entities),
            ttl=timedelta(days=1),
            source=options.get("source", source),
            schema=schema,
        )

    profile = view(
        "profile",
        [
            ("city", String, {}),
            ("age", Int64, {"mtlrank.role": "dense", "mtlrank.transform": "log1p", "mtlrank.bins": "8"}),
            ("level", Int32, {"mtlrank.min_count": "3", "mtlrank.max_size": "100"}),
            ("vip", Bool, {}),
            ("balance", Float64, {"owner": "bank"}),
            ("secret", String, {"mtlrank.role": "ignore"}),
            ("picture", Bytes, {"mtlrank.role": "ignore"}),
            ("joined", UnixTimestamp, {"mtlrank.role": "categorical"}),
            ("seen", Array(Int64), {"mtlrank.shares": "item_id", "mtlrank.max_len": "7"}),
            (
                "words",
                Array(String),
                {"mtlrank.role": "bag", "mtlrank.vocab": "hashed", "mtlrank.buckets": "99"},
            ),
        ],
    )
    facts = view("facts", [("brand", Int64, {}), ("price", Float32, {})], entities=[item])
    visit = view("visit", [("pages", Int64, {"mtlrank.role": "dense"})], entities=[user, session])
    everyone = view("everyone", [("weekday", Int64, {})], entities=[])
    pushed = view(
        "pushed",
        [("recent", Int64, {})],
        source=PushSource(name="push", batch_source=parquet(folder, "pushed")),
    )
    asked = view("asked", [("f", Int64, {})], entities=[dense_key])
    request = RequestSource(name="request", schema=[Field(name="hour", dtype=Int64)])

    @on_demand_feature_view(
        sources=[profile, facts, request], schema=[Field(name="affordable", dtype=Float32)], mode="pandas"
    )
    def derived(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"affordable": (inputs["balance"] / inputs["price"]).astype("float32")})

    wrong = {name: view(name, [("f", dtype, tags)]) for name, (dtype, tags, _) in MISTAKES.items()}
    services = {
        "everything": [profile, facts, visit, everyone, pushed, derived],
        "two_columns": [profile[["age", "city"]]],
        "aliased": [facts, facts.with_name("rival").with_join_key_map({"item_id": "rival_id"})],
        "derived_only": [derived],
        "dense_key": [asked],
        **{name: [found] for name, found in wrong.items()},
    }
    found = feast.FeatureStore(
        config=feast.RepoConfig(
            project="tests",
            provider="local",
            registry=str(folder / "registry.db"),
            offline_store={"type": "duckdb"},
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    found.apply(
        [
            *(user, item, session, dense_key),
            *(profile, facts, visit, everyone, pushed, asked, derived, *wrong.values()),
            *(FeatureService(name=name, features=features) for name, features in services.items()),
        ]
    )
    return found
