"""Branches: from a batch to a vector that joins the towers' output, to logits, or to both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_rank.config import Model
from mtl_rank.nn.layout import Batch, Layout


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
    """A branch. width: length of its vector, 0 = it gives none.

    Shape: Inputs -> BranchOutput
    """

    width: int = 0


@dataclass(frozen=True)
class BranchEntry:
    """One entry of the table below. build: (layout, input width, number of tasks, options) -> branch.

    reads_fields: whether it reads `Inputs.fields`.
    """

    summary: str
    build: Callable[[Layout, int, int, Model], Branch]
    reads_fields: bool = False


BRANCHES: dict[str, BranchEntry] = {}


class Branches(nn.Module):
    """Several branches side by side.

    Shape: Inputs -> vectors (B, width) or None, sum of the logits (B, T) or None
    """

    def __init__(self, branches: Mapping[str, Branch]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.width = sum(branch.width for branch in branches.values())

    def forward(self, inputs: Inputs) -> tuple[Tensor | None, Tensor | None]:
        outputs: list[BranchOutput] = [branch(inputs) for branch in self.branches.values()]
        vectors = [output.vector for output in outputs if output.vector is not None]
        logits = [output.logits for output in outputs if output.logits is not None]
        return (
            torch.cat(vectors, dim=1) if vectors else None,
            torch.stack(logits).sum(dim=0) if logits else None,
        )
