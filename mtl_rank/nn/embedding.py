"""One concatenated embedding table per width, one gather per table, row-sparse gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.nn.layout import Batch, IdColumn, Layout, SequenceColumn


class Embedded(NamedTuple):
    """ids: per table (B, columns, dim), in the order of `layout.ids`. sequences: per input (B, L, dim)."""

    ids: list[Tensor]
    sequences: list[Tensor]


class Vectors(NamedTuple):
    """Embeddings that were made elsewhere. rows (N,) of table `table`, values (N, dim).

    block: the rows of their input, first and one past the last. frozen: training leaves them as they are.
    """

    table: int
    rows: Tensor
    values: Tensor
    block: tuple[int, int]
    frozen: bool


@dataclass(frozen=True)
class _Reads:
    """What one gather reads: positions of id columns within the table's, and sequence inputs."""

    columns: tuple[int, ...]
    sequences: tuple[int, ...]


class Embeddings(nn.Module):
    """Looks up every id of a batch, those of columns and of sequences in one gather per table.

    The gradient of a table is sparse: only the rows of a batch cost anything, whatever the vocabulary.
    Rows for missing and unseen values start at zero, so that a value never met in training adds nothing.

    frozen: names of inputs whose rows training leaves alone. dropout: of each looked-up value.
    """

    def __init__(
        self,
        layout: Layout,
        with_sequences: bool = True,
        std: float = 0.01,
        dropout: float = 0.0,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.layout = layout
        self.tables = nn.ModuleList(
            nn.Embedding(rows, dim, sparse=True) for rows, dim in zip(layout.rows, layout.dims, strict=True)
        )
        self.dropout = nn.Dropout(dropout) if dropout else None
        self._columns = [layout.columns_of(table) for table in range(len(layout.dims))]
        self._sequences = [
            [i for i, column in enumerate(layout.sequences) if column.table == table and with_sequences]
            for table in range(len(layout.dims))
        ]
        self._frozen = self._frozen_reads(frozen)
        of_ids = {(column.table, column.offset) for column in layout.ids}
        of_sequences = {(column.table, column.offset) for column in layout.sequences}
        weights = list(self.tables.parameters())
        with torch.no_grad():
            for weight in weights:
                weight.normal_(std=std)
            for table, offset in of_ids | of_sequences:
                weights[table][offset : offset + 2] = 0

    @torch.no_grad()
    def load(self, vectors: Vectors) -> None:
        """Start from vectors. Frozen values without one are zero: nothing is known of them."""
        weight = list(self.tables.parameters())[vectors.table]
        if vectors.frozen:
            weight[vectors.block[0] : vectors.block[1]] = 0
        weight[vectors.rows] = vectors.values

    def forward(self, batch: Batch) -> Embedded:
        """The embeddings of a batch; no sequences when built without them."""
        of_ids: list[Tensor] = []
        of_sequences: dict[int, Tensor] = {}
        for number, (table, columns, sequences) in enumerate(
            zip(self.tables, self._columns, self._sequences, strict=True)
        ):
            ids = batch.ids[:, columns]
            reads = self._frozen[number]
            if reads is None:
                parts = [ids, *(batch.sequences[i] for i in sequences)]
                embedded = self._split(table(torch.cat(parts, dim=1) if sequences else ids), parts)
            else:
                embedded = self._partly_frozen(table, reads, ids, batch)
            of_ids.append(embedded[0])
            of_sequences.update(zip(sequences, embedded[1:], strict=True))
        return Embedded(of_ids, [of_sequences[i] for i in sorted(of_sequences)])

    def _split(self, values: Tensor, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        if self.dropout is not None:
            values = self.dropout(values)
        return torch.split(values, [part.shape[1] for part in parts], dim=1)

    def _partly_frozen(
        self, table: nn.Module, reads: tuple[_Reads, _Reads], ids: Tensor, batch: Batch
    ) -> list[Tensor]:
        """Frozen inputs are read in a gather of their own, without gradient, so that no step touches their rows."""
        assert isinstance(table, nn.Embedding)
        columns: list[Tensor] = []
        of_sequences: dict[int, Tensor] = {}
        for read, learned in zip(reads, (True, False), strict=True):
            parts = [ids[:, list(read.columns)], *(batch.sequences[i] for i in read.sequences)]
            wanted = torch.cat(parts, dim=1)
            values = table(wanted) if learned else F.embedding(wanted, table.weight.detach())
            of_columns, *histories = self._split(values, parts)
            columns.append(of_columns)
            of_sequences.update(zip(read.sequences, histories, strict=True))
        order = [column for read in reads for column in read.columns]
        back = torch.tensor(sorted(range(len(order)), key=order.__getitem__), device=ids.device)
        in_order = torch.cat(columns, dim=1).index_select(1, back.long())
        return [in_order, *(of_sequences[i] for i in sorted(of_sequences))]

    def _frozen_reads(self, names: Sequence[str]) -> list[tuple[_Reads, _Reads] | None]:
        """Per table what is learned and what is frozen; None where nothing is."""
        columns: list[IdColumn | SequenceColumn] = [*self.layout.ids, *self.layout.sequences]
        blocks = {(column.table, column.offset) for column in columns if column.name in names}
        found: list[tuple[_Reads, _Reads] | None] = []
        for table, (of_table, sequences) in enumerate(zip(self._columns, self._sequences, strict=True)):
            reads = []
            for wanted in (False, True):
                ids = self.layout.ids[of_table]
                reads.append(
                    _Reads(
                        tuple(i for i, c in enumerate(ids) if ((table, c.offset) in blocks) == wanted),
                        tuple(
                            i
                            for i in sequences
                            if ((table, self.layout.sequences[i].offset) in blocks) == wanted
                        ),
                    )
                )
            learned, frozen = reads
            found.append((learned, frozen) if any((frozen.columns, frozen.sequences)) else None)
        return found
