"""RankingDataModule: block shuffle over memory-mapped columns, whole-batch slices, no worker processes."""

from collections.abc import Iterator

import lightning as L
import numpy as np
import torch

from mtl_rank.data.encoded import EncodedDataset, concat, take
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.data.sampling import NegativeSampling
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
        weights=None
        if rows.weights is None
        else torch.from_numpy(np.require(rows.weights, requirements=["C", "W"])),
        gaps=tuple(torch.from_numpy(np.require(gaps, requirements=["C", "W"])) for gaps in rows.gaps),
    )


class ShuffledBatches:
    """One epoch of shuffled batches; the order depends on (seed, epoch) alone. The last batch may be shorter.

    `state_dict` and `load_state_dict` hold the position within the epoch: Lightning puts them into its
    checkpoints, and the next iteration then continues with the batch after the last one.

    rank, world: of each batch, the process `rank` of `world` gets every `world`-th row. sampling: the rows of
    the epoch; None = all.
    """

    def __init__(
        self,
        dataset: EncodedDataset,
        batch_size: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        sampling: NegativeSampling | None = None,
    ) -> None:
        self._dataset = dataset
        self._sampling = sampling
        self.rows = sampling.rows if sampling else dataset.rows
        self._batch_size = batch_size
        self._order = (seed, epoch)
        self._share = slice(rank, None, world)
        self._given = 0
        self._skip = 0

    def __len__(self) -> int:
        return -(-self.rows // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self._given, self._skip = self._skip, 0
        for rows in self._batches(skip=self._given):
            self._given += 1
            yield to_batch(take(rows, self._share))

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        # All batches given: the next epoch begins at its first one.
        self._skip = state["batches"] % len(self)

    def _batches(self, skip: int) -> Iterator[EncodedRows]:
        """Batches number `skip` and later; those before are gathered, since their rests fill the next ones."""
        generator = np.random.default_rng(self._order)
        size = self._batch_size
        before = skip * size
        seen = 0
        rest: list[EncodedRows] = []
        for block in self._blocks(generator):
            rows = concat([*rest, block]) if rest else block
            whole = len(rows.ids) // size * size
            for start in range(0, whole, size):
                if seen >= before:
                    yield take(rows, slice(start, start + size))
                seen += size
            rest = [take(rows, slice(whole, None))] if whole < len(rows.ids) else []
        for rows in rest:
            if seen >= before:
                yield rows

    def _blocks(self, generator: np.random.Generator) -> Iterator[EncodedRows]:
        starts = generator.permutation(np.arange(0, self._dataset.rows, RUN_ROWS))
        per_block = BLOCK_ROWS // RUN_ROWS
        for first in range(0, len(starts), per_block):
            block = concat([self._run(start, generator) for start in starts[first : first + per_block]])
            self._dataset.release()
            yield take(block, generator.permutation(len(block.ids)))

    def _run(self, start: int, generator: np.random.Generator) -> EncodedRows:
        rows = take(self._dataset.arrays, slice(start, start + RUN_ROWS))
        if self._sampling is None:
            return rows
        return take(rows, self._sampling.choose(start // RUN_ROWS, rows.labels, generator))


class OrderedBatches:
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
    """Feeds a trainer from two encoded splits.

    The loaders are plain iterables: a `DataLoader` would add nothing here and draws random numbers of its own.
    """

    def __init__(
        self,
        train: EncodedDataset,
        valid: EncodedDataset,
        batch_size: int,
        seed: int,
        sampling: NegativeSampling | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._sampling = sampling
        self._train = train
        self._valid = valid
        self._seed = seed

    def train_dataloader(self) -> ShuffledBatches:
        """The batches of the trainer's current epoch; to be asked for anew each epoch."""
        trainer = self.trainer
        epoch, rank, world = (
            (trainer.current_epoch, trainer.global_rank, trainer.world_size) if trainer else (0, 0, 1)
        )
        return ShuffledBatches(self._train, self.batch_size, self._seed, epoch, rank, world, self._sampling)

    def val_dataloader(self) -> OrderedBatches:
        return OrderedBatches(self._valid, VALIDATION_ROWS)
