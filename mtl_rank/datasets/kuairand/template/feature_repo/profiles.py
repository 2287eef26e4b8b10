"""What is on record about users and videos."""

from datetime import timedelta

from entities import user, video
from feast import FeatureView, Field
from feast.types import Array, Float32, Int64
from fields import category, code, source, total

user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    ttl=timedelta(0),
    source=source("user_profile"),
    online=True,
    owner="kuairand",
    description="One snapshot per user; its date is not published, 24 April 2022 is assumed.",
    schema=[
        category("user_active_degree", "How active the user was lately"),
        code("is_live_streamer", "1: streams live, -124: not known"),
        code("is_video_author", "1: has uploaded a video"),
        total("follow_user_num", "Users followed"),
        category("follow_user_num_range", "Users followed, in ranges"),
        total("fans_user_num", "Followers"),
        category("fans_user_num_range", "Followers, in ranges"),
        total("friend_user_num", "Friends"),
        category("friend_user_num_range", "Friends, in ranges"),
        total("register_days", "Days since registration"),
        category("register_days_range", "Days since registration, in ranges"),
        *(code(f"onehot_feat{i}", "An anonymised class of the user") for i in range(18)),
    ],
)

video_facts = FeatureView(
    name="video_facts",
    entities=[video],
    ttl=timedelta(0),
    source=source("video_facts"),
    online=True,
    owner="kuairand",
    description="Facts fixed at upload.",
    schema=[
        code("author_id", "Who uploaded it"),
        category("video_type", "NORMAL or AD"),
        category("upload_type", "How it was uploaded"),
        code("music_id", "Its background music"),
        code("music_type", "Kind of background music"),
        Field(name="server_width", dtype=Float32, description="Pixels"),
        Field(name="server_height", dtype=Float32, description="Pixels"),
        Field(
            name="tags",
            dtype=Array(Int64),
            description="Its content tags, up to three",
            tags={"mtlrank.role": "bag", "mtlrank.shares": "tag_id", "mtlrank.max_len": "3"},
        ),
        Field(
            name="first_tag",
            dtype=Int64,
            description="The first of its tags; the model has it as the key tag_id",
            tags={"mtlrank.role": "ignore"},
        ),
        Field(
            name="video_duration",
            dtype=Float32,
            description="Milliseconds; the model has it as the context column duration_ms",
            tags={"mtlrank.role": "ignore"},
        ),
    ],
)
