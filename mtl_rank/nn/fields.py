"""One vector of equal width per input: what fm and cin multiply."""

import torch
from torch import Tensor, nn

from mtl_rank.config import Model
from mtl_rank.config.model import DEFAULT_DIM
from mtl_rank.nn.embedding import Embedded
from mtl_rank.nn.history import masked_mean
from mtl_rank.nn.layout import Batch, IdColumn, Layout, SequenceColumn


class SharedFields(nn.Module):
    """The vectors that the trunk reads, and per number a vector of its own times its value.

    Order: id columns, sequences, numbers. Every embedding of the layout has the same width.

    Shape: Batch, Embedded, per sequence (B, dim) -> (B, m, dim)
    """

    def __init__(self, layout: Layout, dim: int, std: float = 0.01) -> None:
        super().__init__()
        self.of_numbers = nn.Parameter(torch.empty(len(layout.dense), dim).normal_(std=std))

    def forward(self, batch: Batch, embedded: Embedded, sequences: list[Tensor]) -> Tensor:
        numbers = batch.dense.unsqueeze(2) * self.of_numbers
        return torch.cat([*embedded.ids, *(vector.unsqueeze(1) for vector in sequences), numbers], dim=1)


class IndependentFields(nn.Module):
    """Vectors of their own, in one table of one width; a sequence is the mean of what it holds.

    Shape: Batch, Embedded, per sequence (B, dim) -> (B, m, dim); the embeddings of the trunk are not read.
    """

    def __init__(self, layout: Layout, dim: int, std: float = 0.01) -> None:
        super().__init__()
        self.pad_ids = [column.pad_id for column in layout.sequences]
        self.rows = GlobalRows(layout)
        self.table = nn.Embedding(self.rows.total, dim, sparse=True)
        self.of_numbers = nn.Parameter(torch.empty(len(layout.dense), dim).normal_(std=std))
        with torch.no_grad():
            self.table.weight.normal_(std=std)
            self.table.weight[self.rows.special] = 0

    def forward(self, batch: Batch, embedded: Embedded, sequences: list[Tensor]) -> Tensor:
        del embedded, sequences
        parts = [self.rows.ids(batch), *(self.rows.sequence(batch, i) for i in range(len(self.pad_ids)))]
        ids, *histories = self.table(torch.cat(parts, dim=1)).split([part.shape[1] for part in parts], dim=1)
        means = [
            masked_mean(history, given != pad).unsqueeze(1)
            for history, given, pad in zip(histories, batch.sequences, self.pad_ids, strict=False)
        ]
        return torch.cat([ids, *means, batch.dense.unsqueeze(2) * self.of_numbers], dim=1)


def fields_shape(layout: Layout, model: Model) -> tuple[int, int]:
    """(number of fields, width of each)."""
    options = model.fields
    shared = layout.dims[0] if options.embeddings == "shared" and layout.dims else None
    count = len(layout.ids) + len(layout.sequences) + len(layout.dense)
    usual = DEFAULT_DIM if model.dim == "auto" else model.dim
    return count, shared or options.dim or usual


def build_fields(layout: Layout, model: Model) -> SharedFields | IndependentFields:
    """The field vectors that the options ask for."""
    kind = SharedFields if model.fields.embeddings == "shared" else IndependentFields
    return kind(layout, fields_shape(layout, model)[1])


class GlobalRows(nn.Module):
    """The rows of all embedding tables numbered as if they stood one after another.

    special: the rows for missing and unseen values.
    """

    shift: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        starts = [sum(layout.rows[:table]) for table in range(len(layout.rows))]
        self.total = sum(layout.rows)
        shift = torch.tensor([starts[column.table] for column in layout.ids], dtype=torch.int32)
        self.register_buffer("shift", shift, persistent=False)
        self._starts = [starts[column.table] for column in layout.sequences]
        columns: list[IdColumn | SequenceColumn] = [*layout.ids, *layout.sequences]
        first = {starts[column.table] + column.offset for column in columns}
        self.special = sorted(first | {row + 1 for row in first})

    def ids(self, batch: Batch) -> Tensor:
        """(B, F)"""
        return batch.ids + self.shift

    def sequence(self, batch: Batch, sequence: int) -> Tensor:
        """(B, L)"""
        return batch.sequences[sequence] + self._starts[sequence]
