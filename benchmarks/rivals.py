"""What the models are measured beside, on the same encoded rows: gradient-boosted trees, and torch-rechub."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from train import processes
from trainings import NUMBERS, Data, Job, Row

RECHUB = ("MMOE", "SharedBottom", "PLE", "AITM")
TREES = "gradient-boosted trees"


def trees_job(data: Data, seed: int) -> Job:
    return Job((data.name, TREES, json.dumps(dict(data.settings)), str(seed)), trees, (data, seed))


def rechub_job(data: Data, model: str, seed: int, folder: Path, python: Path) -> Job:
    key = (data.name, f"torch-rechub {model}", json.dumps(dict(data.settings)), str(seed))
    return Job(key, rechub, (data, model, seed, folder, python))


def trees(data: Data, seed: int) -> Row:
    """A classifier per task, on the rows where it is defined, of the numbers and the ids with few values."""
    import time

    from mtl_rank.data.encoded import take
    from mtl_rank.data.labels import sigmoid
    from mtl_rank.evaluation.baselines import Trees

    encoder, train, _, test = encoded(data)
    rows = take(train.arrays, slice(None))
    start = time.perf_counter()
    model = Trees(encoder, rows, seed)
    seconds = time.perf_counter() - start
    found = sigmoid(model.logits(test))
    predictions = dict(zip(data.tasks, found.T, strict=True))
    return {
        "outputs": measured(data, test.labels, {**predictions, "ctcvr": found.prod(axis=1)}),
        "seconds": seconds,
    }


def rechub(data: Data, model: str, seed: int, folder: Path, python: Path) -> Row:
    """One of torch-rechub's multi-task models, trained in its own environment.

    It has no masks: its second task is the product on every row, and the quotient is the conditional probability.
    """
    spec = exported(data, folder)
    out = folder / f"{model}-{seed}.npy"
    found = processes.measure("train.rechub_quality", spec, model, seed, out, python=python)
    p = np.load(out).astype(np.float64)
    out.unlink()
    labels = np.load(folder / "test-labels.npy")
    # Nothing keeps its product below its click: a quotient of 1 or more would make the loss of a row infinite.
    quotient = np.clip(p[:, 1] / np.maximum(p[:, 0], 1e-6), 0, 0.99)
    predictions = {"ctr": p[:, 0], "ctcvr": p[:, 1], "cvr": quotient}
    return {"outputs": measured(data, labels, predictions), **found}


def measured(data: Data, labels: np.ndarray, predictions: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """AUC, NE and calibration of ctr, cvr (where it is defined) and their product."""
    from mtl_rank import metrics

    of_outputs = {"ctr": labels[:, 0], "cvr": labels[:, 1], "ctcvr": np.nan_to_num(labels[:, 1], nan=0.0)}
    found = {}
    for name in data.outputs:
        y, p = of_outputs[name].astype(np.float64), predictions[name]
        known = ~np.isnan(y)
        values = (
            function(y[known], p[known])
            for function in (metrics.auc, metrics.normalised_entropy, metrics.calibration)
        )
        found[name] = dict(zip(NUMBERS, values, strict=True))
    return found


def encoded(data: Data) -> tuple[Any, Any, Any, Any]:
    """Encoder, training and validation rows as every model reads them, and the rows of the test window."""
    import tempfile

    from mtl_rank.config import load_config
    from mtl_rank.data.cache import prepared
    from mtl_rank.data.encoded import concat
    from mtl_rank.data.prepare import as_polars, example_columns
    from mtl_rank.evaluation.windows import split_window
    from mtl_rank.features.repository import open_repository
    from mtl_rank.features.retrieval import retrieve
    from mtl_rank.features.snapshot import snapshot_rows
    from mtl_rank.progress import Silent

    config = load_config(data.project, data.settings).with_tasks(data.tasks)
    repository = open_repository(
        (data.project / config.feature_repo).resolve(), config.feature_service, config.context
    )
    found = prepared(config, data.project, repository, Silent())
    window = split_window(config, "test")
    with tempfile.TemporaryDirectory() as folder:
        rows = snapshot_rows(
            config.examples, data.project, example_columns(config, repository), Path(folder) / "rows.parquet"
        )
        parts = [
            found.encoder.encode(as_polars(pa.Table.from_batches([batch])))
            for batch in retrieve(repository, rows, window.start, window.end)
        ]
    return found.encoder, found.train, found.valid, concat(parts)


def exported(data: Data, folder: Path) -> Path:
    """The encoded rows as NumPy files with a description, for an environment without mtl_rank; its path."""
    spec = folder / "spec.json"
    if spec.exists():
        return spec
    encoder, train, valid, test = encoded(data)
    folder.mkdir(parents=True, exist_ok=True)
    for window, rows in (("train", train.arrays), ("valid", valid.arrays), ("test", test)):
        for name, array in _columns(rows):
            np.save(folder / f"{window}-{name}.npy", array)
    layout = encoder.layout
    document = {
        "ids": [[column.name, column.offset, column.size] for column in layout.ids],
        "sequences": [
            [column.offset, column.size, None if column.target is None else layout.ids[column.target].name]
            for column in layout.sequences
        ],
        "dense": len(layout.dense),
        "tasks": len(data.tasks),
    }
    spec.write_text(json.dumps(document), encoding="utf-8")
    return spec


def _columns(rows: Any) -> Iterator[tuple[str, np.ndarray]]:
    yield from (("ids", rows.ids), ("dense", rows.dense), ("labels", rows.labels))
    yield from ((f"sequence-{i}", array) for i, array in enumerate(rows.sequences))
