"""What is known about users, items and pairs of user and category, and for how long it holds."""

from datetime import timedelta

import numpy as np
import pandas as pd
from entities import category, item, user
from feast import FeatureView, Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int64
from sources import (
    item_hours,
    item_profiles,
    user_category_hours,
    user_histories,
    user_hours,
    user_profiles,
)

OWNER = "ranking@shop.example"
COUNT = {"mtlrank.role": "dense", "mtlrank.transform": "log1p"}

user_profile = FeatureView(
    name="user_profile",
    description="Who the user is, as of sign-up.",
    entities=[user],
    ttl=timedelta(days=365),
    source=user_profiles,
    owner=OWNER,
    schema=[
        Field(name="age_band", dtype=Int64, description="Six bands, youngest first."),
        Field(name="city_tier", dtype=Int64, description="Four tiers, largest cities first."),
        Field(name="device", dtype=Int64, description="0 app, 1 web, 2 mobile web."),
        Field(name="income_band", dtype=Int64, description="Five bands, lowest first."),
        Field(
            name="price_preference",
            dtype=Float32,
            description="Price level the user said to look for at sign-up, 1 = usual.",
        ),
        Field(name="loyalty_tier", dtype=Int64, description="0 none .. 4 gold."),
        Field(name="coupon_use", dtype=Int64, description="0 never .. 3 always."),
    ],
)

item_profile = FeatureView(
    name="item_profile",
    description="What the item is and what it costs, written at launch and every week.",
    entities=[item],
    ttl=timedelta(days=35),
    source=item_profiles,
    owner=OWNER,
    schema=[
        Field(name="subcategory", dtype=Int64),
        Field(name="brand", dtype=Int64),
        Field(name="tags", dtype=Array(Int64), description="Three tags.", tags={"mtlrank.role": "bag"}),
        Field(
            name="price",
            dtype=Float32,
            description="Price asked this week, in money.",
            tags={"mtlrank.transform": "log1p"},
        ),
        Field(name="price_level", dtype=Float32, description="Price over the category's usual price."),
        Field(name="discount", dtype=Float32, description="Share taken off the list price this week."),
        Field(name="rating", dtype=Float32, description="Mean of the reviews, 1 to 5."),
        Field(name="reviews", dtype=Int64, description="Number of reviews.", tags=COUNT),
    ],
)

user_stats = FeatureView(
    name="user_stats",
    description="What the user did up to the end of the last hour with a visit.",
    entities=[user],
    ttl=timedelta(days=60),
    source=user_hours,
    owner=OWNER,
    schema=[
        Field(name="impressions", dtype=Int64, tags=COUNT),
        Field(name="clicks", dtype=Int64, tags=COUNT),
        Field(name="purchases", dtype=Int64, tags=COUNT),
        Field(name="clicks_7d", dtype=Int64, tags=COUNT),
        Field(name="click_rate", dtype=Float32, description="Clicks per impression, smoothed."),
        Field(name="purchase_rate", dtype=Float32, description="Purchases per click, smoothed."),
        Field(name="mean_dwell", dtype=Float32, description="Seconds per click, smoothed."),
        Field(name="usual_price_level", dtype=Float32, description="Mean price level of clicked items."),
    ],
)

item_stats = FeatureView(
    name="item_stats",
    description="What happened to the item up to the end of the last hour in which it was shown.",
    entities=[item],
    ttl=timedelta(days=14),
    source=item_hours,
    owner=OWNER,
    schema=[
        Field(name="impressions_1d", dtype=Int64, tags=COUNT),
        Field(name="clicks_1d", dtype=Int64, tags=COUNT),
        Field(name="impressions_7d", dtype=Int64, tags=COUNT),
        Field(name="clicks_7d", dtype=Int64, tags=COUNT),
        Field(name="click_rate_7d", dtype=Float32, description="Clicks per impression, smoothed."),
        Field(name="click_rate", dtype=Float32, description="Since the beginning, smoothed."),
        Field(name="purchase_rate", dtype=Float32, description="Purchases per click, smoothed."),
        Field(name="mean_dwell", dtype=Float32, description="Seconds per click, smoothed."),
    ],
)

user_category = FeatureView(
    name="user_category",
    description="What the user said and did about a category.",
    entities=[user, category],
    ttl=timedelta(days=60),
    source=user_category_hours,
    owner=OWNER,
    schema=[
        Field(
            name="stated_interest",
            dtype=Int64,
            description="0 none .. 10 strong, as the user said at sign-up.",
            tags={"mtlrank.role": "dense"},
        ),
        Field(name="impressions", dtype=Int64, tags=COUNT),
        Field(name="clicks", dtype=Int64, tags=COUNT),
        Field(name="purchases", dtype=Int64, tags=COUNT),
        Field(name="clicks_7d", dtype=Int64, tags=COUNT),
        Field(name="click_rate", dtype=Float32, description="Clicks per impression, smoothed."),
    ],
)

user_history = FeatureView(
    name="user_history",
    description="The last 50 items clicked, most recent last.",
    entities=[user],
    ttl=timedelta(days=60),
    source=user_histories,
    owner=OWNER,
    schema=[
        Field(
            name="clicked_items",
            dtype=Array(Int64),
            tags={"mtlrank.role": "sequence", "mtlrank.shares": "item_id", "mtlrank.max_len": "50"},
        ),
    ],
)


@on_demand_feature_view(
    sources=[user_profile, item_profile],
    # Feast compares these fields with what it infers, so they carry neither description nor tags.
    schema=[Field(name="price_gap", dtype=Float32)],
    mode="pandas",
    description="Log of the item's price level over the level the user looks for: 0 is a match.",
    owner=OWNER,
)
def price_match(inputs: pd.DataFrame) -> pd.DataFrame:
    """Missing where either side is unknown."""
    gap = np.log(inputs["price_level"].astype("float64") / inputs["price_preference"].astype("float64"))
    return pd.DataFrame({"price_gap": gap.astype("float32")})
