"""Looks inside a run: which experts a task uses, which inputs it needs, what a candidate looks at in a history."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import torch

from mtl_rank.data.classes import numbers_of_classes
from mtl_rank.data.datamodule import to_batch
from mtl_rank.data.encoded import take
from mtl_rank.data.encoder import BIN_SUFFIX, MISSING_SUFFIX, EncodedRows
from mtl_rank.data.labels import Target, sigmoid
from mtl_rank.data.prepare import as_polars, example_columns
from mtl_rank.evaluation.windows import EmptyWindow, Window
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import retrieve
from mtl_rank.features.snapshot import snapshot_rows
from mtl_rank.metrics import auc, normalised_entropy
from mtl_rank.nn.columns import Columns
from mtl_rank.nn.gates import entropy, utilisation
from mtl_rank.nn.layout import Batch, Layout
from mtl_rank.predict import BLOCK_ROWS, Predictor
from mtl_rank.progress import Reporter

Doubles = npt.NDArray[np.float64]
_SEED = 7
_ORDER, _DRAWN = "__order__", "__drawn__"


@dataclass(frozen=True)
class GateUse:
    """How a task uses the experts of a level, means over rows.

    utilisation: the weight of each expert, those of the task's own first (ple). entropy: of a row's weights, over
    that of even ones: 1 = every expert alike, 0 = one expert alone.
    """

    task: str
    level: int
    utilisation: tuple[float, ...]
    entropy: float


@dataclass(frozen=True)
class Importance:
    """What a task loses when an input's values are dealt out anew among the rows.

    loss_rise: of the normalised loss (NE, or squared error over variance). auc_drop: not of regression tasks.
    """

    input: str
    task: str
    loss_rise: float | None
    auc_drop: float | None


@dataclass(frozen=True)
class Attention:
    """What the candidate of a row looks at in one of its histories, oldest first."""

    row: dict[str, str]
    sequence: str
    values: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Inspection:
    """What `mtlrank inspect` shows. rows: how many the numbers rest on."""

    window: str
    rows: int
    gates: tuple[GateUse, ...]
    importance: tuple[Importance, ...]
    attention: tuple[Attention, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def inspect(
    predictor: Predictor,
    repository: FeatureRepository,
    project: Path,
    examples: Any,
    window: Window,
    folder: Path,
    reporter: Reporter,
    limit: int,
    shown: int,
) -> Inspection:
    """Inspect a run on at most `limit` labelled rows of a window, drawn evenly; attention of the first `shown`.

    Raises DataError when the window has no rows.
    """
    columns = example_columns(predictor.config, repository)
    snapshot = snapshot_rows(examples, project, columns, folder / "inspect.parquet")
    reporter.stage(f"read {window.name}", None)
    batches = retrieve(repository, snapshot, window.start, window.end)
    table = _drawn((as_polars(pa.Table.from_batches([batch])) for batch in batches), limit)
    if table is None:
        raise EmptyWindow(
            f"split {window.name}: no example between {window.start} and {window.end or 'the end'}"
        )
    rows = predictor.encoder.encode(table)
    return Inspection(
        window=window.name,
        rows=table.height,
        gates=tuple(gate_use(predictor, rows)),
        importance=tuple(importance(predictor, rows, reporter)),
        attention=tuple(_attention(predictor, table.head(shown), repository.schema.join_keys)),
    )


def _drawn(tables: Iterator[pl.DataFrame], limit: int) -> pl.DataFrame | None:
    """At most `limit` rows, each row as likely as any other, in their order; None when there is none."""
    generator = np.random.default_rng(_SEED)
    kept: pl.DataFrame | None = None
    seen = 0
    for table in tables:
        if not table.height:
            continue
        marked = table.with_columns(
            pl.Series(_DRAWN, generator.random(table.height)),
            pl.Series(_ORDER, np.arange(seen, seen + table.height)),
        )
        seen += table.height
        both = marked if kept is None else pl.concat([kept, marked])
        kept = both.bottom_k(limit, by=_DRAWN)
    return None if kept is None else kept.sort(_ORDER).drop(_DRAWN, _ORDER)


def _blocks(rows: EncodedRows) -> Iterator[Batch]:
    for start in range(0, len(rows.ids), BLOCK_ROWS):
        yield to_batch(take(rows, slice(start, start + BLOCK_ROWS)))


@torch.inference_mode()
def gate_use(predictor: Predictor, rows: EncodedRows) -> Iterator[GateUse]:
    """Of every level and task; nothing for a model without gates."""
    of_blocks = [predictor.network.gates(batch) for batch in _blocks(rows)]
    for level, parts in enumerate(zip(*of_blocks, strict=True), start=1):
        gates = torch.cat(parts).double()
        use, spread = utilisation(gates).tolist(), entropy(gates).tolist()
        for i, task in enumerate(predictor.config.tasks):
            yield GateUse(task, level, tuple(use[i]), spread[i])


def importance(predictor: Predictor, rows: EncodedRows, reporter: Reporter) -> Iterator[Importance]:
    """Every input once, its columns together: the id, its bins, its indicator, its times."""
    targets, layout = predictor.encoder.targets, predictor.encoder.layout
    before = _losses(_logits(predictor, rows), rows.labels, targets)
    inputs = predictor.encoder.schema.inputs
    reporter.stage("permute inputs", len(inputs))
    for done, spec in enumerate(inputs, start=1):
        order = np.random.default_rng(_SEED).permutation(len(rows.ids))
        after = _losses(_logits(predictor, _permuted(rows, layout, spec.name, order)), rows.labels, targets)
        for target, (loss, area), (other_loss, other_area) in zip(targets, before, after, strict=True):
            yield Importance(spec.name, target.name, _less(other_loss, loss), _less(area, other_area))
        reporter.advance(done)


@torch.inference_mode()
def _logits(predictor: Predictor, rows: EncodedRows) -> Doubles:
    """Not filled up to whole blocks: the last bit does not matter here, and few rows are quicker."""
    found: Doubles = torch.cat([predictor.network(batch) for batch in _blocks(rows)]).double().numpy()
    return found


def _permuted(rows: EncodedRows, layout: Layout, name: str, order: npt.NDArray[np.int64]) -> EncodedRows:
    ids, dense = rows.ids.copy(), rows.dense.copy()
    for i, column in enumerate(layout.ids):
        if column.name in (name, name + BIN_SUFFIX):
            ids[:, i] = ids[order, i]
    for i, number in enumerate(layout.dense):
        if number in (name, name + MISSING_SUFFIX):
            dense[:, i] = dense[order, i]
    sequences = tuple(
        values[order] if column.name == name else values
        for column, values in zip(layout.sequences, rows.sequences, strict=True)
    )
    gaps = tuple(
        values[order] if column.name == name else values
        for column, values in zip(layout.timed, rows.gaps, strict=True)
    )
    return rows._replace(ids=ids, dense=dense, sequences=sequences, gaps=gaps)


def _losses(
    logits: Doubles, labels: npt.NDArray[np.float32], targets: tuple[Target, ...]
) -> list[tuple[float | None, float | None]]:
    """(normalised loss, AUC) of each task, None where undefined."""
    found: list[tuple[float | None, float | None]] = []
    columns = Columns.of(targets).of_task
    for i, target in enumerate(targets):
        defined = ~np.isnan(labels[:, i])
        y, z = labels[defined, i].astype(np.float64), logits[defined, i]
        if target.classes:
            numbers = numbers_of_classes(y, logits[defined][:, columns[i]], target) if len(y) else {}
            found.append((numbers.get("ne"), numbers.get("auc")))
        elif target.kind == "binary":
            found.append((normalised_entropy(y, sigmoid(z)), auc(y, z)) if len(y) else (None, None))
        else:
            found.append((float(((z - y) ** 2).mean() / y.var()) if len(y) and np.ptp(y) > 0 else None, None))
    return found


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


@torch.inference_mode()
def _attention(predictor: Predictor, table: pl.DataFrame, keys: tuple[str, ...]) -> Iterator[Attention]:
    rows = predictor.encoder.encode(table, with_labels=False)
    by_sequence = predictor.network.attention(to_batch(rows))
    for i, row in enumerate(table.iter_rows(named=True)):
        for name, weights in by_sequence.items():
            # As the encoder has it: the last ones are kept first, nulls among them are then padding.
            kept = (row[name] or [])[-weights.shape[1] :]
            values = [str(value) for value in kept if value is not None]
            yield Attention(
                row={key: str(row[key]) for key in keys},
                sequence=name,
                values=tuple(values),
                weights=tuple(weights[i, : len(values)].tolist()),
            )
