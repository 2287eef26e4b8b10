"""The wide branch: first-order weights and crosses of two inputs (Cheng et al. 2016)."""

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.config.model import WideOptions
from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.nn.branch import Branch, BranchOutput, Inputs
from mtl_rank.nn.fields import GlobalRows
from mtl_rank.nn.layers import PerTask
from mtl_rank.nn.layout import Batch, Layout

BIN_SUFFIX = "#bin"


class Wide(Branch):
    """logits_t = w_t . phi(x): a weight per id, per cross of two ids and per number, all starting at zero.

    phi is one-hot for an id column, the mean of one-hots for a sequence, one-hot of a hashed pair for a cross.
    The weights are scalars of their own, not those of embeddings; a task has its own. They stand in one table
    with row-sparse gradients, so that a step costs the same at any vocabulary.

    Shape: Inputs -> logits (B, T)
    """

    def __init__(self, layout: Layout, tasks: int, options: WideOptions) -> None:
        super().__init__()
        self.layout = layout
        self.rows = GlobalRows(layout)
        self.crosses = HashedCrosses(layout, options) if options.crosses else None
        sizes = [column.size for column in layout.sequences]
        # "In the history" and "is the candidate" are different facts about an item: sequences have rows of their own.
        *self._starts, self._crosses_start = accumulate(sizes, initial=self.rows.total)
        rows = self._crosses_start + len(options.crosses) * options.buckets
        self.weights = nn.EmbeddingBag(rows, tasks, mode="sum", sparse=True) if rows else None
        self.of_numbers = PerTask(len(layout.dense), tasks) if layout.dense else None
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    def forward(self, inputs: Inputs) -> BranchOutput:
        batch = inputs.batch
        logits = []
        if self.weights is not None:
            ids, shares = self._phi(batch)
            logits.append(self._weighted_sum(ids, shares))
        if self.of_numbers is not None:
            logits.append(self.of_numbers(batch.dense).float())
        return BranchOutput(logits=torch.stack(logits).sum(dim=0))

    def _weighted_sum(self, ids: Tensor, shares: Tensor) -> Tensor:
        assert self.weights is not None
        if torch.compiler.is_exporting():
            # ONNX has no bags.
            each = F.embedding(ids, self.weights.weight) * shares.unsqueeze(2)
            return each.sum(dim=1)
        summed: Tensor = self.weights(ids, per_sample_weights=shares)
        return summed

    def _phi(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Rows of the table and what each counts: two of (B, everything that is an id)."""
        ids = [self.rows.ids(batch)]
        if self.crosses is not None:
            ids.append(self.crosses(batch) + self._crosses_start)
        shares = [torch.ones(part.shape, device=part.device) for part in ids]
        for column, history, start in zip(self.layout.sequences, batch.sequences, self._starts, strict=False):
            there = (history != column.pad_id).to(torch.float32)
            ids.append(history + (start - column.offset))
            shares.append(there / there.sum(dim=1, keepdim=True).clamp(min=1))
        return torch.cat(ids, dim=1), torch.cat(shares, dim=1)


class HashedCrosses(nn.Module):
    """Pairs of id columns, each pair of values hashed into the buckets of its cross.

    Shape: Batch -> (B, crosses), from 0 on, cross after cross
    """

    first: Tensor
    second: Tensor
    offsets: Tensor
    starts: Tensor

    def __init__(self, layout: Layout, options: WideOptions) -> None:
        super().__init__()
        pairs = [[column_named(layout, name) for name in pair] for pair in options.crosses]
        self.buckets = options.buckets
        of_columns = torch.tensor([column.offset for column in layout.ids], dtype=torch.int64)
        starts = torch.arange(len(pairs), dtype=torch.int64) * options.buckets
        for name, values in (
            ("first", torch.tensor([pair[0] for pair in pairs])),
            ("second", torch.tensor([pair[1] for pair in pairs])),
            ("offsets", of_columns),
            ("starts", starts),
        ):
            self.register_buffer(name, values, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        local = batch.ids - self.offsets
        hashed = mixed(mixed(local.index_select(1, self.first)) + local.index_select(1, self.second))
        return (hashed.remainder(self.buckets) + self.starts).to(torch.int32)


def mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, whose products wrap around; the result is not negative."""
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return (x ^ _shifted(x, 31)) & 0x7FFF_FFFF_FFFF_FFFF


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift right, zeros coming in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def column_named(layout: Layout, name: str) -> int:
    """Position of the id column of an input; for a number that of its bins. Raises ConfigError."""
    names = [column.name for column in layout.ids]
    for wanted in (name, name + BIN_SUFFIX):
        if wanted in names:
            return names.index(wanted)
    known = [known.removesuffix(BIN_SUFFIX) for known in names]
    raise ConfigError(f"model.wide.crosses: there is no id input {name!r}; {did_you_mean(name, known)}")
