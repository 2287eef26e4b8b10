"""What the ranking model reads."""

from feast import FeatureService
from views import (
    OWNER,
    item_profile,
    item_stats,
    price_match,
    user_category,
    user_history,
    user_profile,
    user_stats,
)

ranking_v1 = FeatureService(
    name="ranking_v1",
    description="Everything known about a user and an item when a page is put together.",
    owner=OWNER,
    features=[
        user_profile,
        item_profile,
        user_stats,
        item_stats,
        user_category,
        user_history,
        price_match,
    ],
)
