"""Sequence encoders: from the embeddings of a history to one vector."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_rank.config import Model
from mtl_rank.nn.embedding import Embedded
from mtl_rank.nn.layout import Batch, Layout, SequenceColumn


class History(NamedTuple):
    """One sequence input of a batch.

    keys: (B, L, dim) its embeddings. ids: (B, L). mask: (B, L), True where there is an id.
    target: (B, dim), the embedding of the id column whose rows it shares; None without one.
    """

    keys: Tensor
    ids: Tensor
    mask: Tensor
    target: Tensor | None


class Encoded(NamedTuple):
    """vector: (B, dim). auxiliary: a loss of the encoder's own, in training; None = there is none."""

    vector: Tensor
    auxiliary: Tensor | None = None


class MeanPooling(nn.Module):
    """The mean of the embeddings that are not padding; zero for an empty history.

    Shape: History -> (B, dim)
    """

    def forward(self, history: History) -> Encoded:
        return Encoded(masked_mean(history.keys, history.mask))


def masked_mean(embedded: Tensor, mask: Tensor) -> Tensor:
    """(B, L, dim), (B, L) -> (B, dim): the mean of what is there, zero where nothing is."""
    weights = mask.to(embedded.dtype)
    total = (weights.unsqueeze(1) @ embedded).squeeze(1)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class SequenceEncoder:
    """One entry of the table below.

    needs_target: it compares the history with the candidate. needs_order: it reads positions; bags have none.
    Inputs that lack what it needs are pooled by their mean.
    """

    summary: str
    build: Callable[[int, int, Model], nn.Module]
    needs_target: bool = False
    needs_order: bool = False

    def fits(self, column: SequenceColumn) -> bool:
        return (column.target is not None or not self.needs_target) and (
            column.ordered or not self.needs_order
        )


# build: (dim, longest history, options) -> module
SEQUENCES: Mapping[str, SequenceEncoder] = {
    "mean": SequenceEncoder("the mean of its embeddings", lambda _dim, _longest, _model: MeanPooling()),
}
NO_SEQUENCES = "none"


class Histories(nn.Module):
    """Every sequence input through the encoder that fits it.

    Shape: Batch, Embedded -> per input (B, dim), auxiliary losses
    """

    def __init__(self, layout: Layout, encoder: SequenceEncoder, model: Model) -> None:
        super().__init__()
        self.layout = layout
        self.encoders = nn.ModuleList(
            encoder.build(layout.dims[column.table], column.max_len, model)
            if encoder.fits(column)
            else MeanPooling()
            for column in layout.sequences
        )
        self._in_line = [encoder.needs_order and encoder.fits(column) for column in layout.sequences]
        self._targets = [_target_position(layout, column) for column in layout.sequences]

    def in_line(self, batch: Batch) -> Batch:
        """The batch with histories whose positions are read without gaps: what there is in front, padding behind."""
        if not any(self._in_line):
            return batch
        sequences = [
            without_gaps(ids, column.pad_id) if wanted else ids
            for ids, column, wanted in zip(batch.sequences, self.layout.sequences, self._in_line, strict=True)
        ]
        return batch._replace(sequences=tuple(sequences))

    def forward(self, batch: Batch, embedded: Embedded) -> tuple[list[Tensor], list[Tensor]]:
        encoded = [
            encoder(history)
            for encoder, history in zip(self.encoders, self.histories(batch, embedded), strict=True)
        ]
        return [one.vector for one in encoded], [
            one.auxiliary for one in encoded if one.auxiliary is not None
        ]

    def histories(self, batch: Batch, embedded: Embedded) -> Sequence[History]:
        """What each encoder reads."""
        targets = [None if at is None else embedded.ids[at[0]].select(1, at[1]) for at in self._targets]
        return [
            History(keys, ids, ids != column.pad_id, target)
            for keys, ids, column, target in zip(
                embedded.sequences, batch.sequences, self.layout.sequences, targets, strict=True
            )
        ]


def without_gaps(ids: Tensor, pad_id: int) -> Tensor:
    """(B, L) -> (B, L): the ids in their order with the padding behind them."""
    order = torch.sort((ids == pad_id).to(torch.uint8), dim=1, stable=True).indices
    return ids.gather(1, order)


def _target_position(layout: Layout, column: SequenceColumn) -> tuple[int, int] | None:
    """(table, position within the table's columns) of the id column whose rows a sequence shares."""
    if column.target is None:
        return None
    return column.table, column.target - layout.columns_of(column.table).start
