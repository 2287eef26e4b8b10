"""An epoch of batches: every row exactly once, in an order that depends on seed and epoch alone."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from mtl_rank.data.datamodule import (
    BLOCK_ROWS,
    RUN_ROWS,
    OrderedBatches,
    RankingDataModule,
    ShuffledBatches,
    auto_batch_size,
    to_batch,
)
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.nn.layout import IdColumn, Layout


def numbered(rows):
    """Rows whose every array tells their number."""
    number = np.arange(rows, dtype=np.int32)
    return EncodedDataset(
        rows,
        EncodedRows(
            ids=np.stack([number, number + 1], axis=1),
            dense=-number[:, None].astype(np.float32),
            sequences=(np.stack([number] * 3, axis=1),),
            labels=number[:, None].astype(np.float32) * 0.5,
        ),
    )


def numbers_of(batch):
    """The row numbers of a batch, after a check that its arrays speak of the same rows."""
    number = batch.ids[:, 0]
    assert torch.equal(batch.ids[:, 1], number + 1)
    assert torch.equal(batch.dense[:, 0], -number.float())
    assert torch.equal(batch.sequences[0], number[:, None].expand(-1, 3))
    assert torch.equal(batch.labels[:, 0], number.float() * 0.5)
    return number


def epoch_of(rows, batch_size, seed=1, epoch=0):
    batches = ShuffledBatches(numbered(rows), batch_size, seed, epoch)
    return batches, [numbers_of(batch) for batch in batches]


BORDERS = sorted(
    {
        border + step
        for border in (RUN_ROWS, BLOCK_ROWS, BLOCK_ROWS + RUN_ROWS, 2 * BLOCK_ROWS)
        for step in (-1, 0, 1)
    }
)


@pytest.mark.parametrize("batch_size", [1000, RUN_ROWS, BLOCK_ROWS, BLOCK_ROWS + 1])
@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, *BORDERS])
def test_an_epoch_is_a_permutation_of_all_rows(rows, batch_size):
    batches, parts = epoch_of(rows, batch_size)
    assert len(parts) == len(batches)
    assert all(len(part) == batch_size for part in parts[:-1])
    order = torch.cat([torch.empty(0, dtype=torch.int32), *parts])
    assert torch.equal(order.sort().values, torch.arange(rows, dtype=torch.int32))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 200])
def test_small_splits_lose_no_row(rows, batch_size):
    _, parts = epoch_of(rows, batch_size)
    assert sorted(torch.cat(parts).tolist()) == list(range(rows))


def test_the_order_depends_on_seed_and_epoch_alone():
    rows = BLOCK_ROWS + 3 * RUN_ROWS + 17
    orders = {
        (seed, epoch): torch.cat(epoch_of(rows, 512, seed, epoch)[1]) for seed in (1, 2) for epoch in (0, 1)
    }
    for (seed, epoch), order in orders.items():
        assert torch.equal(torch.cat(epoch_of(rows, 512, seed, epoch)[1]), order)
        # Whole batches come from the same order, whatever their size.
        assert torch.equal(torch.cat(epoch_of(rows, 4096, seed, epoch)[1]), order)
    found = list(orders.values())
    for i, order in enumerate(found):
        for other in found[:i]:
            assert (order == other).float().mean() < 0.01


def test_iterating_twice_gives_the_same_epoch():
    batches, first = epoch_of(5000, 512)
    assert torch.equal(torch.cat([numbers_of(batch) for batch in batches]), torch.cat(first))


@pytest.mark.parametrize("given", [0, 1, 3, 64, 65, 130, 131])
def test_an_epoch_that_was_broken_off_continues_with_the_next_batch(given):
    rows, batch_size = 2 * BLOCK_ROWS + 3000, 1024
    first, whole = epoch_of(rows, batch_size)
    assert len(whole) == 131
    started = iter(first)
    for _ in range(given):
        next(started)
    second = ShuffledBatches(numbered(rows), batch_size, seed=1, epoch=0)
    second.load_state_dict(first.state_dict())
    rest = [numbers_of(batch) for batch in second]
    # After a whole epoch, or none of it, an epoch begins.
    expected = whole[given:] if given < 131 else whole
    assert len(rest) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(rest, expected, strict=True))
    again = [numbers_of(batch) for batch in second]
    assert torch.equal(torch.cat(again), torch.cat(whole))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_batch_among_them(world):
    rows, batch_size = 5000, 512
    _, whole = epoch_of(rows, batch_size)
    shares = [
        [numbers_of(batch) for batch in ShuffledBatches(numbered(rows), batch_size, 1, 0, rank, world)]
        for rank in range(world)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat(parts).sort().values, batch.sort().values)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_a_batch_mixes_rows_from_all_over():
    """Of 32 runs a block holds 16; a batch of 1024 rows meets each of them, and in no order."""
    _, parts = epoch_of(2 * BLOCK_ROWS, 1024)
    for part in parts[:3]:
        assert len(set((part // RUN_ROWS).tolist())) == BLOCK_ROWS // RUN_ROWS
        assert 0.4 < (part.diff() > 0).float().mean() < 0.6


def test_validation_rows_come_in_order():
    parts = [numbers_of(batch) for batch in OrderedBatches(numbered(1050), 100)]
    assert [len(part) for part in parts] == [100] * 10 + [50]
    assert torch.cat(parts).tolist() == list(range(1050))


def test_tensors_of_mapped_rows_are_copies(tmp_path):
    """A read-only map must never be written through a tensor."""
    layout = Layout((4,), (9,), (IdColumn("a", 0, 0, 9), IdColumn("b", 0, 0, 9)), (), ("x",))
    rows = numbered(50).arrays._replace(sequences=())
    dataset = EncodedDataset.write(tmp_path, layout, 1, [rows])
    for batch in ShuffledBatches(dataset, 8, seed=0, epoch=0):
        batch.ids.zero_()
    for part in dataset.slices(8):
        to_batch(part).ids.zero_()
    assert np.array_equal(EncodedDataset.open(tmp_path, layout, 1).arrays.ids, rows.ids)


class Recorder(L.LightningModule):
    """Trains nothing and notes which rows it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.trained, self.validated = {}, {}

    def training_step(self, batch):
        self.trained.setdefault(self.current_epoch, []).append(batch.ids[:, 0])
        return self.weight.sum()

    def validation_step(self, batch):
        self.validated.setdefault(self.current_epoch, []).append(batch.ids[:, 0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_the_data_module_orders_each_epoch_anew(tmp_path):
    def epochs():
        recorder = Recorder()
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=tmp_path,
        )
        trainer.fit(recorder, RankingDataModule(numbered(300), numbered(20), batch_size=64, seed=5))
        return recorder

    recorder = epochs()
    orders = [torch.cat(parts) for parts in recorder.trained.values()]
    assert len(orders) == 3
    for epoch, order in enumerate(orders):
        assert torch.equal(order, torch.cat(epoch_of(300, 64, seed=5, epoch=epoch)[1]))
    assert [torch.cat(parts).tolist() for parts in recorder.validated.values()] == [list(range(20))] * 3


def test_the_automatic_batch_size_grows_with_the_data():
    sizes = [auto_batch_size(rows) for rows in (1, 50_000, 500_000, 5_000_000, 10**9)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def resident_bytes():
    """Of the pages of files that the process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells the pages of files apart"
)
@pytest.mark.parametrize(
    "batches", [lambda d: ShuffledBatches(d, 4096, 1, 0), lambda d: OrderedBatches(d, 4096)]
)
def test_an_epoch_holds_no_more_of_the_files_than_it_is_reading(tmp_path, batches):
    rows, fields = 600_000, 20
    layout = Layout(
        ids=tuple(IdColumn(f"id_{i}", 0, 0, 2) for i in range(fields)),
        dense=(),
        sequences=(),
        rows=(2,),
        dims=(4,),
    )
    part = EncodedRows(
        np.ones((rows, fields), np.int32), np.empty((rows, 0), np.float32), (), np.ones((rows, 1))
    )
    dataset = EncodedDataset.write(
        tmp_path, layout, 1, [part._replace(labels=part.labels.astype(np.float32))]
    )
    del part
    before, most = resident_bytes(), 0
    for number, _ in enumerate(batches(dataset)):
        if number % 10 == 0:
            most = max(most, resident_bytes() - before)
    assert most < rows * fields * 4 / 3
