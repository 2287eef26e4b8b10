"""Layouts and batches with random content."""

import torch

from mtl_rank.config import Task
from mtl_rank.nn.layout import Batch, IdColumn, Layout, SequenceColumn

# Two tables: rows 0..4 user, 5..8 city, 9..11 bins in the first; 0..6 item, 7..9 tags in the second.
LAYOUT = Layout(
    dims=(3, 4),
    rows=(12, 10),
    ids=(
        IdColumn("user", 0, 0, 5),
        IdColumn("city", 0, 5, 4),
        IdColumn("age#bin", 0, 9, 3),
        IdColumn("item", 1, 0, 7),
    ),
    sequences=(
        SequenceColumn("seen", 1, 0, 7, max_len=5, target=3, ordered=True),
        SequenceColumn("tags", 1, 7, 3, max_len=2, target=None, ordered=False),
    ),
    dense=("age", "age#missing"),
)
# The same columns in one table of one width, as fm and cin multiply them.
EVEN = Layout(
    dims=(3,),
    rows=(22,),
    ids=(*LAYOUT.ids[:3], IdColumn("item", 0, 12, 7)),
    sequences=(
        SequenceColumn("seen", 0, 12, 7, max_len=5, target=3, ordered=True),
        SequenceColumn("tags", 0, 19, 3, max_len=2, target=None, ordered=False),
    ),
    dense=("age", "age#missing"),
)
WIDTH = 3 * 3 + 4 + 4 + 4 + 2


def random_batch(rows, seed=0, tasks=2, layout=LAYOUT):
    """Ids from the whole range of each column; histories of every length, padded behind."""
    generator = torch.Generator().manual_seed(seed)

    def randint(low, high, shape):
        return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)

    ids = [randint(c.offset, c.offset + c.size, (rows, 1)) for c in layout.ids]
    sequences = []
    for column in layout.sequences:
        values = randint(column.offset + 1, column.offset + column.size, (rows, column.max_len))
        lengths = randint(0, column.max_len + 1, (rows, 1))
        sequences.append(torch.where(torch.arange(column.max_len) < lengths, values, column.pad_id))
    return Batch(
        ids=torch.cat(ids, dim=1) if ids else torch.empty(rows, 0, dtype=torch.int32),
        dense=torch.randn(rows, len(layout.dense), generator=generator),
        sequences=tuple(sequences),
        labels=(torch.rand(rows, tasks, generator=generator) < 0.5).float(),
    )


def randomise(module, seed=0):
    """Every weight of a module drawn anew, so that no zero hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module


def rows_of(batch, index):
    """The chosen rows of a batch."""
    return Batch(
        batch.ids[index], batch.dense[index], tuple(s[index] for s in batch.sequences), batch.labels[index]
    )


def tables_of(network):
    """The embedding tables as tensors, in the order of the layout."""
    return list(network.embeddings.parameters())


def tasks_of(count):
    """A click, a conversion given the click, and further ones on their own; None for a single task."""
    names = ["click", "conversion", *(f"other{i}" for i in range(count - 2))][:count]
    tasks = {name: Task(label="y", given="click" if name == "conversion" else None) for name in names}
    return tasks if count > 1 else None
