"""What a branch is: from a batch to a vector that joins the towers' output, to logits, or to both."""

from typing import NamedTuple

from torch import Tensor, nn

from mtl_rank.nn.layout import Batch


class Inputs(NamedTuple):
    """What a branch may read. e: (B, d) the input vector. fields: (B, m, dim), None where no branch reads them."""

    batch: Batch
    e: Tensor
    fields: Tensor | None = None


class BranchOutput(NamedTuple):
    """vector: (B, width), logits: (B, T); a branch gives one of them, or both."""

    vector: Tensor | None = None
    logits: Tensor | None = None


class Branch(nn.Module):
    """width: length of its vector, 0 = it gives none.

    Shape: Inputs -> BranchOutput
    """

    width: int = 0
