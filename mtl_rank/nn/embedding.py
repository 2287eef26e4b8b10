"""One concatenated embedding table per width, one gather per table, row-sparse gradients."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_rank.nn.layout import Batch, Layout


class Embedded(NamedTuple):
    """ids: per table (B, columns, dim), in the order of `layout.ids`. sequences: per input (B, L, dim)."""

    ids: list[Tensor]
    sequences: list[Tensor]


class Embeddings(nn.Module):
    """Looks up every id of a batch, those of columns and of sequences in one gather per table.

    The gradient of a table is sparse: only the rows of a batch cost anything, whatever the vocabulary.
    Rows for missing and unseen values start at zero, so that a value never met in training adds nothing.
    """

    def __init__(self, layout: Layout, with_sequences: bool = True, std: float = 0.01) -> None:
        super().__init__()
        self.layout = layout
        self.tables = nn.ModuleList(
            nn.Embedding(rows, dim, sparse=True) for rows, dim in zip(layout.rows, layout.dims, strict=True)
        )
        self._columns = [layout.columns_of(table) for table in range(len(layout.dims))]
        self._sequences = [
            [i for i, column in enumerate(layout.sequences) if column.table == table and with_sequences]
            for table in range(len(layout.dims))
        ]
        of_ids = {(column.table, column.offset) for column in layout.ids}
        of_sequences = {(column.table, column.offset) for column in layout.sequences}
        weights = list(self.tables.parameters())
        with torch.no_grad():
            for weight in weights:
                weight.normal_(std=std)
            for table, offset in of_ids | of_sequences:
                weights[table][offset : offset + 2] = 0

    def forward(self, batch: Batch) -> Embedded:
        """The embeddings of a batch; no sequences when built without them."""
        of_ids: list[Tensor] = []
        of_sequences: dict[int, Tensor] = {}
        for table, columns, sequences in zip(self.tables, self._columns, self._sequences, strict=True):
            ids = batch.ids[:, columns]
            parts = [ids, *(batch.sequences[i] for i in sequences)]
            widths = [part.shape[1] for part in parts]
            embedded = table(torch.cat(parts, dim=1) if sequences else ids).split(widths, dim=1)
            of_ids.append(embedded[0])
            of_sequences.update(zip(sequences, embedded[1:], strict=True))
        return Embedded(of_ids, [of_sequences[i] for i in sorted(of_sequences)])


def padding_mask(batch: Batch, layout: Layout, sequence: int) -> Tensor:
    """True where a sequence holds an id: (B, L)."""
    return batch.sequences[sequence] != layout.sequences[sequence].pad_id
