"""Field kinds that several views share, with the tags the model reads."""

from feast import Field, FileSource
from feast.types import Float32, Int64, String


def source(name: str) -> FileSource:
    """The parquet file data/<name>.parquet of this project."""
    return FileSource(name=name, path=f"../data/{name}.parquet", timestamp_field="event_timestamp")


def count(name: str, description: str) -> Field:
    """A number of events: dense on a log scale."""
    return Field(name=name, dtype=Float32, description=description, tags={"mtlrank.transform": "log1p"})


def rate(name: str, description: str) -> Field:
    """A share or smoothed rate in [0, 1]: dense."""
    return Field(name=name, dtype=Float32, description=description)


def total(name: str, description: str) -> Field:
    """A whole number that is an amount, not a code: dense on a log scale."""
    tags = {"mtlrank.role": "dense", "mtlrank.transform": "log1p"}
    return Field(name=name, dtype=Int64, description=description, tags=tags)


def code(name: str, description: str) -> Field:
    """A whole number that names a class: categorical."""
    return Field(name=name, dtype=Int64, description=description)


def category(name: str, description: str) -> Field:
    """A word that names a class: categorical."""
    return Field(name=name, dtype=String, description=description)
