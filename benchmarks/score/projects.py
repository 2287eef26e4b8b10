"""Two projects with a run of random weights: one whose features come with the rows, one that joins three views."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save_file
from train import workload

from mtl_rank.config import CONFIG_NAME, load_config
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.datasets.projects import apply_features
from mtl_rank.features.repository import open_repository
from mtl_rank.nn.zoo import build_network
from mtl_rank.runs import FINISHED, create_run
from mtl_rank.training.precision import Precision, choose_precision

AT = datetime(2026, 3, 1, tzinfo=UTC)
SEED = 7

# Which columns of the work load each view holds; the others come with the rows.
VIEWS = {
    "user": ["city", "age", "tenure", "tier", "gender", "is_new", "number_0", "number_1", "number_2"],
    "item": ["t_brand", "t_category", "leaf", "price_band", "number_3", "number_4", "number_5"],
    "shop": ["campaign", "t_country", "number_6"],
}
# Rows of history per key: one per day and key, over as many days before AT.
HISTORY = {"user": 3, "item": 20, "shop": 30}

_STORE = """project: bench
provider: local
registry: registry.db
offline_store:
  type: mtl_rank.features.offline_store.DuckDBAsofOfflineStore
online_store:
  type: sqlite
  path: online.db
entity_key_serialization_version: 3
"""
_DEFINITIONS = """from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

VIEWS = {views!r}
TYPES = {{"t": String, "n": Float64}}


def view(name, columns):
    key = f"{{name}}_id"
    entity = Entity(name=name, join_keys=[key], value_type=ValueType.INT64)
    source = FileSource(name=f"{{name}}s", path=f"{{name}}.parquet", timestamp_field="event_timestamp")
    kind = {{column: TYPES.get(column.partition("_")[0], Int64) for column in columns}}
    fields = [Field(name=column, dtype=kind[column], tags=TAGS.get(column, {{}})) for column in columns]
    return entity, FeatureView(
        name=name, entities=[entity], ttl=timedelta(days=365), source=source, schema=fields
    )


TAGS = {tags!r}
for name, columns in VIEWS.items():
    # Feast finds what a module has by name, not what stands in its lists.
    globals()[f"{{name}}_entity"], globals()[f"{{name}}_view"] = view(name, columns)
generated = FeatureService(name="generated", features=[globals()[f"{{name}}_view"] for name in VIEWS])
"""


def make_project(folder: Path, joined: bool) -> None:
    """A project in `folder` with one finished run. joined: three views hold half of the features."""
    repository = folder / "feature_repo"
    repository.mkdir(parents=True)
    views = VIEWS if joined else {}
    tags = {
        name: {"mtlrank.role": "dense", "mtlrank.bins": "0"}
        if name in workload.DENSE
        else {"mtlrank.min_count": "1"}
        for columns in views.values()
        for name in columns
    }
    (repository / "feature_store.yaml").write_text(_STORE, encoding="utf-8")
    (repository / "definitions.py").write_text(_DEFINITIONS.format(views=views, tags=tags), encoding="utf-8")
    for name, columns in views.items():
        _history(name, columns, HISTORY[name]).write_parquet(repository / f"{name}.parquet")
    apply_features(repository)
    _write_config(folder, views)
    _write_run(folder, views)


def precision_here() -> Precision:
    """What a run trained on this machine would score in."""
    return choose_precision("auto", "cpu")


def write_candidates(path: Path, rows: int, joined: bool) -> None:
    """Rows to score, as a parquet file with the columns that no view holds."""
    in_views = {name for columns in VIEWS.values() for name in columns} if joined else set()
    writer = None
    for table in workload.tables(rows, workload.sizes(1), seed=3):
        given = table.drop("click", "buy", *in_views).with_columns(event_timestamp=pl.lit(AT)).to_arrow()
        writer = writer or pq.ParquetWriter(path, given.schema, compression="zstd")
        writer.write_table(given)
    if writer is not None:
        writer.close()


def _history(name: str, columns: list[str], days: int) -> pl.DataFrame:
    """Every key once a day for some days up to AT."""
    generator = np.random.default_rng(SEED)
    keys = workload.SIZES[f"{name}_id"]
    count = keys * days
    values: dict[str, object] = {f"{name}_id": np.tile(np.arange(keys), days)}
    for column in columns:
        if column in workload.DENSE:
            values[column] = generator.normal(size=count)
        else:
            ids = pl.Series((workload.SIZES[column] * generator.random(count) ** 2).astype(np.int64))
            values[column] = "v" + ids.cast(pl.String) if column.startswith("t_") else ids
    times = [AT - timedelta(days=days - day, minutes=-1) for day in range(days)]
    stamps = pl.Series(times, dtype=pl.Datetime("us", "UTC"))
    return pl.DataFrame(values).with_columns(event_timestamp=stamps.gather(np.repeat(np.arange(days), keys)))


def _write_config(folder: Path, views: Mapping[str, list[str]]) -> None:
    in_views = {name for columns in views.values() for name in columns}
    keys = {f"{name}_id" for name in views}
    context: dict[str, dict[str, object]] = {
        name: {"role": "categorical", "min_count": 1}
        for name in workload.SIZES
        if name not in in_views and name not in keys
    }
    context |= {name: {"role": "dense", "bins": 0} for name in workload.DENSE if name not in in_views}
    document = {**workload.config(4096, "auto").model_dump(mode="json", exclude_defaults=True)}
    document |= {"feature_repo": "feature_repo", "context": context}
    (folder / CONFIG_NAME).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def _write_run(folder: Path, views: Mapping[str, list[str]]) -> None:
    config = load_config(folder)
    schema = open_repository(folder / "feature_repo", "generated", config.context).schema
    names = {column: f"{view}__{column}" for view, columns in views.items() for column in columns}
    parts: Iterator[pl.DataFrame] = (table.rename(names) for table in workload.every_value(workload.sizes(1)))
    encoder = fit_encoder(parts, schema, config.tasks, config.model.dim)
    torch.manual_seed(SEED)
    network = build_network(config.model, encoder.layout, torch.zeros(len(config.tasks)), config.tasks)
    with create_run(folder, config) as run:
        encoder.save(run.encoder_folder)
        save_file(network.state_dict(), run.weights)
        run.update(status=FINISHED, precision=asdict(precision_here()))
