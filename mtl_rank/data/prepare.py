"""Entity rows -> encoded splits: one retrieval, one pass that fits, one that encodes."""

import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa

from mtl_rank.config import ProjectConfig
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.encoder import EncodedRows, FeatureEncoder
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.data.labels import row_weights
from mtl_rank.errors import DataError
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import retrieve
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, Snapshot
from mtl_rank.progress import Reporter

_BATCH_ROWS = 131_072


def example_columns(config: ProjectConfig, repository: FeatureRepository) -> list[str]:
    """Columns that labelled entity rows must have."""
    labels = [task.label for task in config.tasks.values()]
    return [*serving_columns(repository), *labels]


def serving_columns(repository: FeatureRepository) -> list[str]:
    """Columns that entity rows must have to be scored."""
    schema = repository.schema
    return list(
        dict.fromkeys([*schema.join_keys, *schema.request_columns, *(spec.name for spec in schema.context)])
    )


def encode_splits(
    config: ProjectConfig,
    repository: FeatureRepository,
    snapshot: Snapshot,
    folder: Path,
    reporter: Reporter,
) -> None:
    """Retrieve, fit and encode; leaves `encoder/`, `train/` and `valid/` in `folder`.

    Raises MtlRankError for input that cannot be trained on.
    """
    _check_split(config, snapshot)
    retrieved = folder / "retrieved"
    windows = _spill(retrieve(repository, snapshot), config.split.valid, retrieved, snapshot.rows, reporter)
    reporter.stage("fit the encoder", windows["train"])
    encoder = fit_encoder(
        _counted(_read(retrieved, "train"), reporter), repository.schema, config.tasks, config.model.dim
    )
    encoder.save(folder / "encoder")
    for split in ("train", "valid"):
        reporter.stage(f"encode {split}", windows[split])
        # Weights are a matter of training: validation, like the test, counts all rows alike.
        weights = config.weights if split == "train" else None
        parts = (_encode(encoder, table, weights) for table in _counted(_read(retrieved, split), reporter))
        EncodedDataset.write(
            folder / split, encoder.layout, len(config.tasks), parts, weighted=weights is not None
        )
    shutil.rmtree(retrieved)


def _encode(encoder: FeatureEncoder, table: pl.DataFrame, weights: str | None) -> EncodedRows:
    rows = encoder.encode(table)
    return rows if weights is None else rows._replace(weights=row_weights(table, weights))


def _check_split(config: ProjectConfig, snapshot: Snapshot) -> None:
    span = f"the examples before the test window run from {snapshot.first} to {snapshot.last}"
    if not snapshot.first < config.split.valid:
        raise DataError(f"split.valid: no training rows before {config.split.valid}; {span}")
    if not snapshot.last >= config.split.valid:
        raise DataError(f"split.valid: no validation rows from {config.split.valid} on; {span}")


def _spill(
    batches: pa.RecordBatchReader, valid: datetime, folder: Path, total: int, reporter: Reporter
) -> dict[str, int]:
    """Write the retrieved stream to one Arrow file per window, so that the join runs once and memory stays flat."""
    folder.mkdir()
    reporter.stage("retrieve features", total)
    rows = {"train": 0, "valid": 0}
    schema = batches.schema
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        pa.ipc.new_file(folder / "train", schema, options=options) as train,
        pa.ipc.new_file(folder / "valid", schema, options=options) as held_out,
    ):
        border = pa.scalar(valid, pa.timestamp("us", tz="UTC"))
        for batch in batches:
            early = pa.compute.less(batch[EVENT_TIMESTAMP], border)
            for split, writer, mask in (
                ("train", train, early),
                ("valid", held_out, pa.compute.invert(early)),
            ):
                part = batch.filter(mask)
                writer.write_batch(part)
                rows[split] += part.num_rows
            reporter.advance(sum(rows.values()))
    return rows


def _read(folder: Path, split: str) -> Iterator[pl.DataFrame]:
    """The rows of one window in larger tables: fewer, wider passes are quicker to encode."""
    with pa.memory_map(str(folder / split)) as source:
        reader = pa.ipc.open_file(source)
        waiting: list[pa.RecordBatch] = []
        for i in range(reader.num_record_batches):
            waiting.append(reader.get_batch(i))
            if sum(batch.num_rows for batch in waiting) >= _BATCH_ROWS:
                yield as_polars(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            yield as_polars(pa.Table.from_batches(waiting))


def as_polars(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _counted(tables: Iterable[pl.DataFrame], reporter: Reporter) -> Iterator[pl.DataFrame]:
    done = 0
    for table in tables:
        yield table
        done += table.height
        reporter.advance(done)
