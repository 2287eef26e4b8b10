"""Negative down-sampling: every epoch has all other rows, and its own share of the negative ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_rank.data.datamodule import RUN_ROWS, ShuffledBatches
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.data.sampling import NegativeSampling


def dataset_of(labels):
    """Rows whose only id is their number; labels (N,) of the task at column 1."""
    rows = len(labels)
    return EncodedDataset(
        rows,
        EncodedRows(
            ids=np.arange(rows, dtype=np.int32)[:, None],
            dense=np.empty((rows, 0), np.float32),
            sequences=(),
            labels=np.stack([np.zeros(rows), labels], axis=1).astype(np.float32),
        ),
    )


def epoch_of(dataset, keep, seed=1, epoch=0):
    sampling = NegativeSampling(dataset.arrays.labels, 1, keep, RUN_ROWS)
    batches = ShuffledBatches(dataset, 64, seed, epoch, sampling=sampling)
    rows = torch.cat([torch.empty(0, dtype=torch.int32), *(batch.ids[:, 0] for batch in batches)]).numpy()
    assert len(rows) == batches.rows == sampling.rows
    return rows


@given(st.integers(0, 3 * RUN_ROWS), st.floats(0.01, 1), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=25)
def test_all_other_rows_and_a_share_of_the_negatives(rows, keep, rate, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < rate).astype(float)
    labels[rng.random(rows) < 0.1] = np.nan
    found = epoch_of(dataset_of(labels), keep, seed)
    assert len(np.unique(found)) == len(found)
    is_negative = labels == 0
    assert set(np.flatnonzero(~is_negative)) <= set(found)
    assert is_negative[found].sum() == int(is_negative.sum() * keep)
    if keep == 1:
        assert len(found) == rows


def test_each_epoch_draws_its_own_negatives_and_repeats_itself():
    dataset = dataset_of(np.arange(6000) % 10 == 0)
    first, again, other = (set(epoch_of(dataset, 0.3, epoch=epoch)) for epoch in (0, 0, 1))
    assert first == again
    negatives = {row for row in first if row % 10}
    shared = len(negatives & other) / len(negatives)
    assert shared == pytest.approx(0.3, abs=0.05)


def test_every_negative_has_the_same_chance():
    dataset = dataset_of(np.zeros(2 * RUN_ROWS))
    chosen = np.zeros(dataset.rows)
    for epoch in range(60):
        chosen[epoch_of(dataset, 0.5, epoch=epoch)] += 1
    # 60 draws with chance 1/2: a deviation of 3.9; the mean over each half of a run is steady.
    assert chosen.std() == pytest.approx(3.9, abs=0.3)
    assert chosen.reshape(4, -1).mean(axis=1) == pytest.approx([30] * 4, abs=0.5)
