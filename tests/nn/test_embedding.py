"""Frozen inputs: the same values as others, no gradient, no step that touches their rows."""

import pytest
import torch
from random_inputs import LAYOUT, random_batch

from mtl_rank.nn.embedding import Embeddings, Vectors
from mtl_rank.training.optim import RankingOptimizer

FROZEN = [("item",), ("city",), ("user", "tags"), ("user", "city", "age#bin", "item")]


def embeddings_of(frozen):
    torch.manual_seed(0)
    return Embeddings(LAYOUT, std=1.0, frozen=frozen)


def blocks_of(frozen):
    columns = [c for c in (*LAYOUT.ids, *LAYOUT.sequences) if c.name in frozen]
    return {(c.table, row) for c in columns for row in range(c.offset, c.offset + c.size)}


@pytest.mark.parametrize("frozen", FROZEN)
def test_frozen_inputs_read_the_same_rows(frozen):
    batch = random_batch(20)
    plain, found = embeddings_of(())(batch), embeddings_of(frozen)(batch)
    for a, b in zip([*plain.ids, *plain.sequences], [*found.ids, *found.sequences], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("frozen", FROZEN)
def test_no_step_touches_frozen_rows_and_the_others_move(frozen):
    """Neither gradient nor L2; a sequence that shares a frozen input's rows is frozen with it."""
    embeddings = embeddings_of(frozen)
    batch = random_batch(50)
    before = [table.detach().clone() for table in embeddings.parameters()]
    optimizer = RankingOptimizer([], embeddings.parameters(), 0.1, 0.0, 0.1, table_l2=1.0)
    embedded = embeddings(batch)
    total = sum(part.sum() for part in [*embedded.ids, *embedded.sequences] if part.requires_grad)
    if torch.is_tensor(total):
        total.backward()
        optimizer.step()
    read = {
        (c.table, i) for c, ids in zip(LAYOUT.ids, batch.ids.unbind(1), strict=True) for i in ids.tolist()
    }
    read |= {
        (c.table, i)
        for c, ids in zip(LAYOUT.sequences, batch.sequences, strict=True)
        for i in ids.flatten().tolist()
    }
    for table, (old, new) in enumerate(zip(before, embeddings.parameters(), strict=True)):
        moved = {(table, row) for row in (old != new).any(dim=1).nonzero().flatten().tolist()}
        assert moved == {(t, row) for t, row in read - blocks_of(frozen) if t == table}


@pytest.mark.parametrize("frozen", [True, False])
def test_loaded_vectors_stand_in_their_rows(frozen):
    embeddings = embeddings_of(())
    before = [table.detach().clone() for table in embeddings.parameters()]
    values = torch.randn(2, 4)
    embeddings.load(Vectors(1, torch.tensor([3, 5]), values, (0, 7), frozen))
    first, second = embeddings.parameters()
    assert torch.equal(first, before[0])
    assert torch.equal(second[[3, 5]], values)
    others = [0, 1, 2, 4, 6]
    assert torch.equal(second[others], torch.zeros(5, 4) if frozen else before[1][others])
    assert torch.equal(second[7:], before[1][7:])
