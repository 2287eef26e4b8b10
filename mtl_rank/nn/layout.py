"""What the network is fed: the shape of a batch and the meaning of its columns."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

GAP_BUCKETS = 34
"""Buckets of the time from a behaviour to the candidate, g seconds: 1 + floor(log2(1 + g)) up to 32, 33 where the time
is unknown; 0 is the candidate, and padding."""


class Batch(NamedTuple):
    """Encoded rows.

    ids: int32 (B, F), already offset into the embedding table of their column.
    dense: float32 (B, D).
    sequences: per sequence input int32 (B, L), padded at the end with the input's `pad_id`.
    labels: float32 (B, T); NaN = the task is not defined or not observed on this row.
    weights: float32 (B,), how much each row counts in the losses; None = all alike.
    gaps: per sequence with times int32 (B, L), the bucket of the time from each of its ids to the candidate.
    """

    ids: Tensor
    dense: Tensor
    sequences: tuple[Tensor, ...]
    labels: Tensor
    weights: Tensor | None = None
    gaps: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class IdColumn:
    """Rows `offset .. offset + size` of embedding table `table`; row `offset` = missing, `offset + 1` = unseen."""

    name: str
    table: int
    offset: int
    size: int


@dataclass(frozen=True)
class SequenceColumn:
    """A list of ids that share a range of rows with an id column, or own one.

    target: index of the id column whose rows it shares; None when it has its own.
    ordered: False for bags. timed: the batch has its gaps.
    """

    name: str
    table: int
    offset: int
    size: int
    max_len: int
    target: int | None
    ordered: bool
    timed: bool = False

    @property
    def pad_id(self) -> int:
        return self.offset


@dataclass(frozen=True)
class Layout:
    """Every column of a batch.

    dims: width of each embedding table; rows: number of rows of each.
    ids are ordered by table, so that the columns of one table are one slice.
    """

    dims: tuple[int, ...]
    rows: tuple[int, ...]
    ids: tuple[IdColumn, ...]
    sequences: tuple[SequenceColumn, ...]
    dense: tuple[str, ...]

    @property
    def timed(self) -> tuple[SequenceColumn, ...]:
        """The sequences that have gaps, in the order of `Batch.gaps`."""
        return tuple(column for column in self.sequences if column.timed)

    def columns_of(self, table: int) -> slice:
        inside = [i for i, column in enumerate(self.ids) if column.table == table]
        return slice(inside[0], inside[-1] + 1) if inside else slice(0, 0)
