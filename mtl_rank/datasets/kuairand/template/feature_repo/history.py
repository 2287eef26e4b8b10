"""What users did before the log begins."""

from datetime import timedelta

from entities import tag, user, video
from feast import FeatureView, Field
from feast.types import Array, Int64
from fields import count, rate, source


def videos(name: str, description: str) -> Field:
    tags = {"mtlrank.role": "sequence", "mtlrank.shares": "video_id", "mtlrank.max_len": "50"}
    return Field(name=name, dtype=Array(Int64), description=description, tags=tags)


user_history = FeatureView(
    name="user_history",
    entities=[user],
    ttl=timedelta(0),
    source=source("user_history"),
    online=True,
    owner="kuairand",
    description="The user's last videos, oldest first, known just after the last of them.",
    schema=[
        videos("watch_seq", "The last 50 videos shown"),
        videos("long_watch_seq", "The last 50 videos watched for long"),
        videos("like_seq", "The last 50 videos liked"),
    ],
)

user_history_priors = FeatureView(
    name="user_history_priors",
    entities=[user],
    ttl=timedelta(0),
    source=source("user_history_priors"),
    online=True,
    owner="kuairand",
    description="The user's history as counts, known at the end of 24 April 2022.",
    schema=[
        count("history_len", "Videos shown"),
        count("long_views", "Long views, at most 50"),
        count("likes", "Likes, at most 50"),
        rate("long_view_rate", "Long views per video shown, smoothed"),
        rate("like_rate", "Likes per video shown, smoothed"),
    ],
)

video_history_priors = FeatureView(
    name="video_history_priors",
    entities=[video],
    ttl=timedelta(0),
    source=source("video_history_priors"),
    online=True,
    owner="kuairand",
    description="The video in all users' histories, known at the end of 24 April 2022.",
    schema=[
        count("watches", "Times shown"),
        count("long_views", "Long views"),
        count("likes", "Likes"),
        rate("long_view_rate", "Long views per time shown, smoothed"),
        rate("like_rate", "Likes per time shown, smoothed"),
    ],
)

user_tag_priors = FeatureView(
    name="user_tag_priors",
    entities=[user, tag],
    ttl=timedelta(0),
    source=source("user_tag_priors"),
    online=True,
    owner="kuairand",
    description="How much of a user's history carries a tag, known at the end of 24 April 2022.",
    schema=[
        count("watches", "Videos of the tag shown"),
        count("long_views", "Long views of the tag"),
        count("likes", "Likes of the tag"),
        rate("watch_share", "Share of the tag in the videos shown"),
        rate("long_view_share", "Share of the tag in the long views"),
        rate("like_share", "Share of the tag in the likes"),
    ],
)
