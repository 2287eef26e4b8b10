"""RankingDataModule: block shuffle over memory-mapped columns, whole-batch slices, no worker processes."""

from collections.abc import Iterator

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from mtl_rank.data.encoded import EncodedDataset, concat, take
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.nn.layout import Batch

BLOCK_ROWS = 65_536
# A block is gathered from runs of this many consecutive rows from all over the split: nearly sequential reads,
# yet a batch mixes rows that lie days apart.
RUN_ROWS = 4_096
VALIDATION_ROWS = 16_384


def auto_batch_size(rows: int) -> int:
    """Small data needs many steps, large data fast ones."""
    return 512 if rows < 200_000 else 1_024 if rows < 2_000_000 else 4_096


def to_batch(rows: EncodedRows) -> Batch:
    """Encoded rows as tensors, copying only what is memory-mapped."""
    return Batch(
        ids=torch.from_numpy(np.require(rows.ids, requirements=["C", "W"])),
        dense=torch.from_numpy(np.require(rows.dense, requirements=["C", "W"])),
        sequences=tuple(torch.from_numpy(np.require(s, requirements=["C", "W"])) for s in rows.sequences),
        labels=torch.from_numpy(np.require(rows.labels, requirements=["C", "W"])),
    )


class ShuffledBatches(IterableDataset[Batch]):
    """One epoch of shuffled batches; the order depends on (seed, epoch) alone. The last batch may be shorter."""

    def __init__(self, dataset: EncodedDataset, batch_size: int, seed: int) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self._dataset.rows // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        generator = np.random.default_rng((self._seed, self.epoch))
        rest: list[EncodedRows] = []
        for block in self._blocks(generator):
            rows = concat([*rest, block]) if rest else block
            whole = len(rows.ids) // self._batch_size * self._batch_size
            for start in range(0, whole, self._batch_size):
                yield to_batch(take(rows, slice(start, start + self._batch_size)))
            rest = [take(rows, slice(whole, None))] if whole < len(rows.ids) else []
        for rows in rest:
            yield to_batch(rows)

    def _blocks(self, generator: np.random.Generator) -> Iterator[EncodedRows]:
        starts = generator.permutation(np.arange(0, self._dataset.rows, RUN_ROWS))
        per_block = BLOCK_ROWS // RUN_ROWS
        for first in range(0, len(starts), per_block):
            runs = [
                take(self._dataset.arrays, slice(start, start + RUN_ROWS))
                for start in starts[first : first + per_block]
            ]
            block = concat(runs)
            yield take(block, generator.permutation(len(block.ids)))


class OrderedBatches(IterableDataset[Batch]):
    """The rows in order, for validation."""

    def __init__(self, dataset: EncodedDataset, batch_size: int) -> None:
        self._dataset = dataset
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-self._dataset.rows // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for part in self._dataset.slices(self._batch_size):
            yield to_batch(part)


class RankingDataModule(L.LightningDataModule):
    """Feeds a trainer from two encoded splits."""

    def __init__(self, train: EncodedDataset, valid: EncodedDataset, batch_size: int, seed: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._train = ShuffledBatches(train, batch_size, seed)
        self._valid = OrderedBatches(valid, VALIDATION_ROWS)

    def train_dataloader(self) -> DataLoader[Batch]:
        self._train.epoch = self.trainer.current_epoch if self.trainer else 0
        return DataLoader(self._train, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self._valid, batch_size=None)
