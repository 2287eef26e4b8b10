"""Counts and smoothed rates of what happened before, from the impression log.

Live views know every impression one millisecond after it; daily views stand still from each midnight in
Beijing to the next. Within a user a live rate is negatively tied to the present label, which spoils the order
of one user's own list: that is why both are here.
"""

from datetime import timedelta

from entities import user, video
from feast import Entity, FeatureView
from fields import count, rate, source


def activity(name: str, entity: Entity, description: str) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=timedelta(0),
        source=source(name),
        online=True,
        owner="kuairand",
        description=description,
        schema=[
            count("impressions", "Earlier impressions"),
            count("clicks", "Earlier clicks"),
            count("long_views", "Earlier long views"),
            count("likes", "Earlier likes"),
            rate("click_rate", "Earlier clicks per impression, smoothed"),
            rate("long_view_rate", "Earlier long views per impression, smoothed"),
            rate("like_rate", "Earlier likes per impression, smoothed"),
        ],
    )


user_activity_live = activity("user_activity_live", user, "The user's impressions up to this one.")
user_activity_daily = activity("user_activity_daily", user, "The user's impressions before today.")
video_activity_live = activity("video_activity_live", video, "The video's impressions up to this one.")
video_activity_daily = activity("video_activity_daily", video, "The video's impressions before today.")
