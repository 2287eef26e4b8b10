"""Runs a predictor over labelled rows and measures it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from mtl_rank.config import ProjectConfig
from mtl_rank.data.labels import LabelReader
from mtl_rank.data.prepare import as_polars, example_columns
from mtl_rank.errors import ConfigError, DataError, did_you_mean
from mtl_rank.evaluation.numbers import Doubles, TaskNumbers, measure_all
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import retrieve
from mtl_rank.features.snapshot import snapshot_rows
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter


class EmptyWindow(DataError):
    """No labelled row lies in the window."""


@dataclass(frozen=True)
class Window:
    """The rows to measure: start <= event_timestamp < end, None = open."""

    name: str
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Evaluation:
    """Numbers of one window of labelled rows."""

    window: str
    rows: int
    group_key: str
    tasks: tuple[TaskNumbers, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "rows": self.rows,
            "gauc_key": self.group_key,
            "tasks": {numbers.name: numbers.as_dict() for numbers in self.tasks},
        }


def split_window(config: ProjectConfig, split: str) -> Window:
    """The window of a split of the project. Raises ConfigError for a name that is none."""
    windows = {
        "train": Window("train", None, config.split.valid),
        "valid": Window("valid", config.split.valid, config.split.test),
        "test": Window("test", config.split.test, config.split.end),
    }
    if split not in windows:
        raise ConfigError(f"--split: there is no split {split!r}; {did_you_mean(split, windows)}")
    return windows[split]


def evaluate(
    predictor: Predictor,
    repository: FeatureRepository,
    project: Path,
    examples: Any,
    window: Window,
    folder: Path,
    reporter: Reporter,
) -> Evaluation:
    """Retrieve, predict and measure the rows of a window. folder: for temporary files.

    Raises DataError when the window has no rows or the labels are not there.
    """
    config = predictor.config
    group_key = gauc_key(config, repository)
    columns = [*example_columns(config, repository), group_key]
    if config.truth is not None:
        columns.append(config.truth.key)
    # The truth key is only looked up where it is there: another labelled file need not have it.
    optional = {config.truth.key: None} if config.truth is not None else {}
    snapshot = snapshot_rows(examples, project, columns, folder / "evaluate.parquet", defaults=optional)
    reader = LabelReader(config.tasks)
    reporter.stage(f"evaluate {window.name}", None)
    labels, predictions, groups, keys = [], [], [], []
    done = 0
    for batch in retrieve(repository, snapshot, window.start, window.end):
        table = as_polars(pa.Table.from_batches([batch]))
        labels.append(reader.read(table))
        found = predictor.predict(table)
        predictions.append(np.column_stack([found[name] for name in predictor.outputs]))
        groups.append(table[group_key])
        if config.truth is not None:
            keys.append(table[config.truth.key])
        done += table.height
        reporter.advance(done)
    if not done:
        raise EmptyWindow(
            f"split {window.name}: no example between {window.start} and {window.end or 'the end'}; "
            f"they run from {snapshot.first} to {snapshot.last}"
        )
    all_labels = np.concatenate(labels)
    all_predictions = np.concatenate(predictions)
    truth = _truth(config, project, pl.concat(keys)) if config.truth is not None else {}
    numbers = measure_all(
        config,
        {name: all_labels[:, i] for i, name in enumerate(config.tasks)},
        {name: all_predictions[:, i] for i, name in enumerate(predictor.outputs)},
        _group_ids(pl.concat(groups)),
        truth,
    )
    return Evaluation(window.name, done, group_key, tuple(numbers))


def gauc_key(config: ProjectConfig, repository: FeatureRepository) -> str:
    """The column whose rows GAUC ranks against each other: `user_key`, or the first join key."""
    if config.user_key is not None:
        return config.user_key
    if not repository.schema.join_keys:
        raise ConfigError(
            "user_key: name the column that tells users apart; the feature service has no join key"
        )
    return repository.schema.join_keys[0]


def _group_ids(values: pl.Series) -> npt.NDArray[np.int64]:
    return values.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()


def _truth(config: ProjectConfig, project: Path, keys: pl.Series) -> dict[str, Doubles]:
    """True values of each task in the order of `keys`, NaN where they are unknown; {} without the file."""
    assert config.truth is not None
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
