"""BST with times: positions are gaps to the candidate, and stay with their behaviours."""

import dataclasses

import numpy as np
import torch
from random_inputs import EVEN, random_batch, randomise, tasks_of
from sequence_formulas import CLOSE, DIM, L, block_by_hand, history_of
from test_trunks import array

from mtl_rank.config import Model
from mtl_rank.nn.bst import BST
from mtl_rank.nn.layout import GAP_BUCKETS
from mtl_rank.nn.zoo import build_network


def random_gaps(shape, seed=3):
    return torch.randint(
        1, GAP_BUCKETS, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32
    )


def test_bst_adds_the_vector_of_each_gap():
    """x_j = v_j + P[pos(v_j)], the candidate at a gap of zero (Chen et al. 2019, section 2.1)."""
    encoder = randomise(BST(DIM, L, blocks=2, heads=2, dropout=0.0, timed=True)).eval()
    history = history_of()
    gaps = random_gaps(history.mask.shape)
    found = array(encoder(history._replace(gaps=gaps)).vector)
    positions = array(encoder.positions)
    assert positions.shape == (GAP_BUCKETS, DIM)
    for row, (mask, keys) in enumerate(zip(history.mask, history.keys, strict=True)):
        x = np.stack([array(history.target[row]), *array(keys[mask])])
        x = x + positions[[0, *gaps[row][mask].tolist()]]
        for block in (*encoder.blocks, encoder.last):
            x, _ = block_by_hand(block, x)
        np.testing.assert_allclose(found[row], x[0], **CLOSE)


def timed_network():
    sequences = (dataclasses.replace(EVEN.sequences[0], timed=True), EVEN.sequences[1])
    layout = dataclasses.replace(EVEN, sequences=sequences)
    model = Model.model_validate({"name": "bst", "history": {"heads": 1}})
    network = randomise(build_network(model, layout, torch.zeros(2), tasks_of(2))).eval()
    batch = random_batch(8, layout=layout)
    gaps = random_gaps(batch.sequences[0].shape) * (batch.sequences[0] != layout.sequences[0].pad_id)
    return network, batch._replace(gaps=(gaps,))


def test_gaps_move_with_their_ids_past_missing_ones():
    network, batch = timed_network()
    seen, gaps = batch.sequences[0], batch.gaps[0]
    pad = torch.full_like(seen[:, :1], network.layout.sequences[0].pad_id)
    # A missing id in front, with a gap that counts for nothing.
    later = batch._replace(
        sequences=(torch.cat([pad, seen], dim=1), *batch.sequences[1:]),
        gaps=(torch.cat([torch.full_like(gaps[:, :1], 9), gaps], dim=1),),
    )
    torch.testing.assert_close(network(later), network(batch), rtol=1e-6, atol=1e-6)


def test_other_times_give_other_logits_where_there_is_a_history():
    network, batch = timed_network()
    there = batch.gaps[0] > 0
    other = batch._replace(gaps=(torch.where(there, batch.gaps[0] % (GAP_BUCKETS - 1) + 1, 0),))
    changed = (network(other) != network(batch)).any(dim=1)
    assert changed.tolist() == there.any(dim=1).tolist()
