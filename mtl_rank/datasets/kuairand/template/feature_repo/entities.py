"""Who and what the features describe."""

from feast import Entity, ValueType

user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.INT64,
    description="A person who uses the app.",
)
video = Entity(
    name="video",
    join_keys=["video_id"],
    value_type=ValueType.INT64,
    description="A short video that can be shown.",
)
tag = Entity(
    name="tag",
    join_keys=["tag_id"],
    value_type=ValueType.INT64,
    description="The first content tag of a video; 0 where a video has none.",
)
