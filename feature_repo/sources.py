"""The shop's tables. Paths are relative to this folder."""

from feast import FileSource


def table(name: str, created: str = "") -> FileSource:
    """A parquet file of the shop, read at its event_timestamp."""
    return FileSource(
        name=name,
        path=f"../data/{name}.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column=created,
    )


user_profiles = table("user_profile", created="created")
item_profiles = table("item_profile", created="created")
user_hours = table("user_stats")
item_hours = table("item_stats")
user_category_hours = table("user_category")
user_histories = table("user_history")
