"""One concatenated embedding table per width, one gather per table, row-sparse gradients."""

import torch
from torch import Tensor, nn

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
        self.tables = nn.ModuleList(
            nn.Embedding(rows, dim, sparse=True) for rows, dim in zip(layout.rows, layout.dims, strict=True)
        )
        self._columns = [layout.columns_of(table) for table in range(len(layout.dims))]
        with torch.no_grad():
            for table in self.tables.parameters():
                table.normal_(std=std)
            ranges = {(column.table, column.offset) for column in (*layout.ids, *layout.sequences)}
            for number, offset in ranges:
                self.tables[number].weight[offset : offset + 2] = 0

    def forward(self, ids: Tensor) -> list[Tensor]:
        """One tensor (B, columns, dim) per table, in the order of `layout.ids`."""
        return [table(ids[:, columns]) for columns, table in zip(self._columns, self.tables, strict=True)]

    def look_up(self, sequence: int, ids: Tensor) -> Tensor:
        """Embeddings of one sequence input: (B, L) -> (B, L, dim)."""
        embedded: Tensor = self.tables[self.layout.sequences[sequence].table](ids)
        return embedded


def padding_mask(batch: Batch, layout: Layout, sequence: int) -> Tensor:
    """True where a sequence holds an id: (B, L)."""
    return batch.sequences[sequence] != layout.sequences[sequence].pad_id
