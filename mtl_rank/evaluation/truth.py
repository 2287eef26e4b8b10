"""True probabilities and values, which simulated data comes with."""

from pathlib import Path

import polars as pl

from mtl_rank.config import ProjectConfig
from mtl_rank.errors import DataError, did_you_mean
from mtl_rank.evaluation.outcomes import Collector, Doubles


def true_values(config: ProjectConfig, project: Path, collector: Collector) -> dict[str, Doubles]:
    """True values of each task in the order of the rows, NaN where they are unknown; {} without the file."""
    assert config.truth is not None
    keys = collector.column(f"truth {config.truth.key}").rename(config.truth.key)
    path, key = project / config.truth.path, config.truth.key
    if not path.is_file() or keys.dtype == pl.Null:
        return {}
    try:
        table = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"truth: {path} cannot be read: {str(error).splitlines()[0]}") from None
    if key not in table.columns:
        raise DataError(f"truth: {path} has no column {key!r}; {did_you_mean(key, table.columns)}")
    if table[key].is_duplicated().any():
        raise DataError(f"truth: {path} has several rows for one {key}")
    try:
        joined = keys.to_frame().join(table, on=key, how="left", maintain_order="left")
    except pl.exceptions.SchemaError:
        raise DataError(
            f"truth: {key} is {table[key].dtype} in {path} and {keys.dtype} in the examples"
        ) from None
    return {
        name: joined[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        for name in config.tasks
        if name in joined.columns
    }
