"""The sequence encoders by name, and all sequences of a batch through them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mtl_rank.config import Model
from mtl_rank.nn.bst import BST
from mtl_rank.nn.dien import DIEN
from mtl_rank.nn.din import DIN
from mtl_rank.nn.embedding import Embedded
from mtl_rank.nn.history import History, HistoryEncoder, MeanPooling, in_front, without_gaps
from mtl_rank.nn.layout import Batch, Layout, SequenceColumn


@dataclass(frozen=True)
class SequenceEncoder:
    """One entry of the table below.

    needs_target: it compares the history with the candidate. needs_order: it reads positions; bags have none.
    Inputs that lack what it needs are pooled by their mean.
    """

    summary: str
    build: Callable[[int, SequenceColumn, Model], HistoryEncoder]
    needs_target: bool = False
    needs_order: bool = False

    def fits(self, column: SequenceColumn) -> bool:
        return (column.target is not None or not self.needs_target) and (
            column.ordered or not self.needs_order
        )


# build: (dim, the sequence, options) -> module
SEQUENCES: dict[str, SequenceEncoder] = {
    "mean": SequenceEncoder("the mean of its embeddings", lambda _dim, _column, _model: MeanPooling()),
    "din": SequenceEncoder(
        "attention of the candidate over the history (Zhou et al. 2018)",
        lambda dim, _, m: DIN(dim, m.history.attention_layers),
        needs_target=True,
    ),
    "dien": SequenceEncoder(
        "interests that evolve towards the candidate (Zhou et al. 2019)",
        lambda dim, _, m: DIEN(dim, m.history.auxiliary),
        needs_target=True,
        needs_order=True,
    ),
    "bst": SequenceEncoder(
        "a transformer over history and candidate (Chen et al. 2019)",
        lambda dim, column, m: BST(
            dim, column.max_len, m.history.blocks, m.history.heads, m.dropout, timed=column.timed
        ),
        needs_target=True,
        needs_order=True,
    ),
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
            encoder.build(layout.dims[column.table], column, model) if encoder.fits(column) else MeanPooling()
            for column in layout.sequences
        )
        self._in_line = [encoder.needs_order and encoder.fits(column) for column in layout.sequences]
        self._targets = [_target_position(layout, column) for column in layout.sequences]

    def in_line(self, batch: Batch) -> Batch:
        """The batch with histories whose positions are read without gaps: what there is in front, padding behind."""
        if not any(self._in_line):
            return batch
        columns = self.layout.sequences
        sequences = [
            without_gaps(ids, column.pad_id) if wanted else ids
            for ids, column, wanted in zip(batch.sequences, columns, self._in_line, strict=True)
        ]
        times = {
            i: in_front(given, batch.sequences[i] != columns[i].pad_id) if self._in_line[i] else given
            for i, given in self._gaps(batch).items()
        }
        return batch._replace(sequences=tuple(sequences), gaps=tuple(times.values()))

    def _gaps(self, batch: Batch) -> dict[int, Tensor]:
        """By position of the sequence, for those with times."""
        timed = [i for i, column in enumerate(self.layout.sequences) if column.timed]
        return dict(zip(timed, batch.gaps, strict=True))

    def forward(self, batch: Batch, embedded: Embedded) -> tuple[list[Tensor], list[Tensor]]:
        encoded = [
            encoder(history)
            for encoder, history in zip(self.encoders, self.histories(batch, embedded), strict=True)
        ]
        return [one.vector for one in encoded], [
            one.auxiliary for one in encoded if one.auxiliary is not None
        ]

    def attention(self, batch: Batch, embedded: Embedded) -> dict[str, Tensor]:
        """By name of the sequence, where its encoder attends: (B, L) weights, those of what is there in front."""
        found = {}
        for column, encoder, history in zip(
            self.layout.sequences, self.encoders, self.histories(batch, embedded), strict=True
        ):
            assert isinstance(encoder, HistoryEncoder)
            weights = encoder.attention(history)
            if weights is not None:
                found[column.name] = in_front(weights.float(), history.mask)
        return found

    def histories(self, batch: Batch, embedded: Embedded) -> Sequence[History]:
        """What each encoder reads."""
        targets = [None if at is None else embedded.ids[at[0]].select(1, at[1]) for at in self._targets]
        gaps = self._gaps(batch)
        return [
            History(keys, ids, ids != column.pad_id, target, gaps.get(i))
            for i, (keys, ids, column, target) in enumerate(
                zip(embedded.sequences, batch.sequences, self.layout.sequences, targets, strict=True)
            )
        ]


def _target_position(layout: Layout, column: SequenceColumn) -> tuple[int, int] | None:
    """(table, position within the table's columns) of the id column whose rows a sequence shares."""
    if column.target is None:
        return None
    return column.table, column.target - layout.columns_of(column.table).start
