"""One concatenated embedding table per width, one gather per table, row-sparse gradients."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.nn.layout import Batch, Layout


class Embeddings(nn.Module):
    """Looks up every id of a batch.

    The gradient of a table is sparse: only the rows of a batch cost anything, whatever the vocabulary.
    Rows for missing and unseen values start at zero, so that a value never met in training adds nothing.

    Shape: ids (B, F) -> per table (B, columns of the table * dim)
    """

    def __init__(self, layout: Layout, std: float = 0.01) -> None:
        super().__init__()
        self.layout = layout
        self.tables = nn.ParameterList(
            nn.Parameter(torch.randn(rows, dim) * std)
            for rows, dim in zip(layout.rows, layout.dims, strict=True)
        )
        self._columns = [layout.columns_of(table) for table in range(len(layout.dims))]
        with torch.no_grad():
            ranges = [(c.table, c.offset) for c in layout.ids] + [
                (c.table, c.offset) for c in layout.sequences
            ]
            for table, offset in ranges:
                self.tables[table][offset : offset + 2] = 0

    def forward(self, ids: Tensor) -> list[Tensor]:
        """One tensor (B, columns, dim) per table, in the order of `layout.ids`."""
        return [
            F.embedding(ids[:, columns], table, sparse=True)
            for columns, table in zip(self._columns, self.tables, strict=True)
        ]

    def look_up(self, sequence: int, ids: Tensor) -> Tensor:
        """Embeddings of one sequence input: (B, L) -> (B, L, dim)."""
        return F.embedding(ids, self.tables[self.layout.sequences[sequence].table], sparse=True)


def padding_mask(batch: Batch, layout: Layout, sequence: int) -> Tensor:
    """True where a sequence holds an id: (B, L)."""
    return batch.sequences[sequence] != layout.sequences[sequence].pad_id
