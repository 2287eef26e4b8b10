"""The work load: generated rows of 23 id columns, 8 numbers and 2 labels, encoded by mtl_rank's own encoder."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from mtl_rank.config import InputOptions, Model, ProjectConfig, Task
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.features.schema import FeatureSchema, Input

# Distinct values of each id column: 1.17 million in all. Columns named t... hold text.
SIZES = {
    "user_id": 1_000_000,
    "item_id": 100_000,
    "shop_id": 40_000,
    "t_query": 20_000,
    "t_brand": 5_000,
    "city": 2_000,
    "t_category": 1_500,
    "leaf": 700,
    "t_device": 300,
    "campaign": 200,
    "t_country": 150,
    "age": 80,
    "price_band": 50,
    "tenure": 40,
    "hour": 24,
    "position": 20,
    "t_channel": 12,
    "month": 12,
    "weekday": 7,
    "tier": 5,
    "gender": 3,
    "is_new": 2,
    "is_app": 2,
}
DENSE = [f"number_{i}" for i in range(8)]
TASKS = {"click": Task(label="click"), "buy": Task(label="buy")}
PART_ROWS = 131_072
VALID_ROWS = 16_384


def sizes(growth: int) -> dict[str, int]:
    """Distinct values per column; `growth` multiplies the three that grow with a business."""
    return {
        name: size * growth if name in ("user_id", "item_id", "shop_id") else size
        for name, size in SIZES.items()
    }


def schema(id_columns: dict[str, int]) -> FeatureSchema:
    options = {
        "categorical": InputOptions(role="categorical", min_count=1),
        "dense": InputOptions(role="dense", bins=0),
    }
    roles = {**dict.fromkeys(id_columns, "categorical"), **dict.fromkeys(DENSE, "dense")}
    inputs = tuple(
        Input(name=name, origin=f"column {name}", role=role, options=options[role])
        for name, role in roles.items()
    )
    return FeatureSchema(service="generated", join_keys=("user_id",), request_columns=(), inputs=inputs)


def config(batch_size: int, precision: str, epochs: int = 1) -> ProjectConfig:
    """The configuration of the work load: MMoE, 4 experts [256, 128], towers [64], nothing that peers lack."""
    return ProjectConfig.model_validate(
        {
            "feature_service": "generated",
            "examples": "generated",
            "split": {"valid": "2026-01-01", "test": "2026-02-01"},
            "tasks": TASKS,
            "model": Model(expert_layers=(256, 128), tower_layers=(64,), sequences="none", dropout=0.0),
            "weighting": {"method": "manual"},
            "fit": {
                "batch_size": batch_size,
                "epochs": epochs,
                "embedding_l2": 0.0,
                "precision": precision,
                "accelerator": "cpu",
            },
        }
    )


def tables(rows: int, id_columns: dict[str, int], seed: int) -> Iterator[pl.DataFrame]:
    """The rows, in parts. Ids of each column are skewed: the density of value i falls as 1 / sqrt(i)."""
    generator = np.random.default_rng(seed)
    weights = np.random.default_rng(0).normal(size=len(DENSE)) / 2
    for start in range(0, rows, PART_ROWS):
        count = min(PART_ROWS, rows - start)
        columns = {
            name: _column(name, (size * generator.random(count) ** 2).astype(np.int64))
            for name, size in id_columns.items()
        }
        dense = generator.normal(size=(count, len(DENSE)))
        logit = dense @ weights
        click = generator.random(count) < 1 / (1 + np.exp(2 - logit))
        buy = click & (generator.random(count) < 1 / (1 + np.exp(1 + logit)))
        labels = {"click": click.astype(np.int8), "buy": buy.astype(np.int8)}
        yield pl.DataFrame({**columns, **dict(zip(DENSE, dense.T, strict=True)), **labels})


def every_value(id_columns: dict[str, int]) -> Iterator[pl.DataFrame]:
    """Rows that hold each value once, so that the vocabularies are complete at any number of rows."""
    most = max(id_columns.values())
    for start in range(0, most, PART_ROWS):
        index = np.arange(start, min(most, start + PART_ROWS))
        columns = {name: _column(name, index % size) for name, size in id_columns.items()}
        numbers = {name: np.sin(index + i) for i, name in enumerate(DENSE)}
        yield pl.DataFrame({**columns, **numbers, "click": index % 2, "buy": index // 2 % 2})


def prepare(folder: Path, rows: int, growth: int = 1) -> None:
    """Write `encoder/`, `train/`, `valid/` and `spec.json`, what a peer needs to read the same rows."""
    if (folder / "spec.json").exists():
        return
    id_columns = sizes(growth)
    encoder = fit_encoder(every_value(id_columns), schema(id_columns), TASKS, default_dim=16)
    encoder.save(folder / "encoder")
    for split, count, seed in (("train", rows, 1), ("valid", VALID_ROWS, 2)):
        parts = (encoder.encode(table) for table in tables(count, id_columns, seed))
        EncodedDataset.write(folder / split, encoder.layout, len(TASKS), parts)
    spec = {
        "rows": rows,
        "sizes": {column.name: column.size for column in encoder.layout.ids},
        "dense": list(encoder.layout.dense),
        "tasks": list(TASKS),
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")


def _column(name: str, values: np.ndarray) -> pl.Series:
    series = pl.Series(values)
    return "v" + series.cast(pl.String) if name.startswith("t_") else series
