"""A small project with three tasks whose labels follow from user, item and price, encoded and ready to train."""

import math

import numpy as np
import polars as pl

from mtl_rank.config import InputOptions, ProjectConfig
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.features.schema import FeatureSchema, Input

INPUTS = {
    "user": ("categorical", {"min_count": 1}),
    "item": ("categorical", {"min_count": 1, "dim": 8}),
    "device": ("categorical", {"vocab": "hashed", "buckets": 20}),
    "price": ("dense", {"bins": 4, "transform": "log1p"}),
    "seen": ("sequence", {"shares": "item", "max_len": 4}),
}
SCHEMA = FeatureSchema(
    service="ranking",
    join_keys=("user", "item"),
    request_columns=(),
    inputs=tuple(
        Input(name=name, origin=f"view.{name}", role=role, options=InputOptions(**options))
        for name, (role, options) in INPUTS.items()
    ),
)
TASKS = {
    "ctr": {"label": "clicked"},
    "cvr": {"label": "bought", "given": "ctr"},
    "dwell": {"label": "seconds", "kind": "regression", "transform": "log1p", "given": "ctr"},
}


def config_of(**changes):
    """The configuration of the small project; sections are updated, `tasks` and the rest replaced."""
    raw = {
        "feature_service": "ranking",
        "examples": "examples.parquet",
        "split": {"valid": "2026-03-01", "test": "2026-04-01"},
        "tasks": TASKS,
        "model": {
            "name": "mmoe",
            "experts": 2,
            "expert_layers": [16],
            "tower_layers": [4],
            "dim": 4,
            "dropout": 0.0,
        },
        "fit": {
            "batch_size": 64,
            "epochs": 2,
            "precision": "fp32",
            "accelerator": "cpu",
            "embedding_lr": 0.05,
            "embedding_l2": 0.01,
            "lr": 0.01,
        },
    }
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value} if key in ("model", "fit", "weighting") else value
    return ProjectConfig.model_validate(raw)


def table_of(rows, seed, noise=0.0):
    """Even users click, as does everyone on every third item; cheap things are bought and dwelt upon.

    noise: the share of rows where it is the other way round.
    """
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 30, rows), rng.integers(0, 40, rows)
    price = rng.lognormal(size=rows)
    likes = ((user % 2 == 0) | (item % 3 == 0)) ^ (rng.random(rows) < noise)
    cheap = (price < 1) ^ (rng.random(rows) < noise)
    return pl.DataFrame(
        {
            "user": pl.Series(user).set(pl.Series(rng.random(rows) < 0.05), None),
            "item": item,
            "device": rng.choice(["ios", "web", "tv"], rows),
            "price": np.where(rng.random(rows) < 0.1, np.nan, price),
            "seen": [rng.integers(0, 40, length).tolist() for length in rng.integers(0, 7, rows)],
            "clicked": (likes & (rng.random(rows) < 0.8)).astype(np.int64),
            "bought": cheap.astype(np.int64),
            "seconds": np.exp(rng.normal(size=rows) * 0.1) * (10 + 50 * cheap),
        }
    )


def encoded(folder, config, train, valid):
    """(encoder, train, valid) of two tables."""
    encoder = fit_encoder([train], SCHEMA, config.tasks, config.model.dim)
    parts = {
        name: EncodedDataset.write(folder / name, encoder.layout, len(config.tasks), [encoder.encode(table)])
        for name, table in (("train", train), ("valid", valid))
    }
    return encoder, parts["train"], parts["valid"]


def logit(p):
    return math.log(p / (1 - p))
