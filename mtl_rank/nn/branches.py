"""The branches by name, and several of them side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtl_rank.config import Model
from mtl_rank.config.model import CrossOptions
from mtl_rank.nn.branch import Branch, BranchOutput, Inputs
from mtl_rank.nn.cross import Cross, cross_v2
from mtl_rank.nn.interactions import CIN, FM
from mtl_rank.nn.layout import Layout
from mtl_rank.nn.wide import Wide


@dataclass(frozen=True)
class Sizes:
    """What a branch is built for. layout: without sequences when the model reads none.

    width: of the input vector e. logits: how many the towers give, one per task or more.
    fields: number of field vectors and their width.
    """

    layout: Layout
    width: int
    logits: int
    fields: tuple[int, int]


@dataclass(frozen=True)
class BranchEntry:
    """One entry of the table below. reads_fields: whether it reads `Inputs.fields`."""

    summary: str
    build: Callable[[Sizes, Model], Branch]
    reads_fields: bool = False


class CrossBranch(Branch):
    """A cross network beside the towers; `model.cross.stacked` puts it in front of the trunk instead.

    Shape: Inputs -> vector (B, d)
    """

    def __init__(self, width: int, network: nn.Module) -> None:
        super().__init__()
        self.width = width
        self.network = network

    def forward(self, inputs: Inputs) -> BranchOutput:
        return BranchOutput(vector=self.network(inputs.e))


# What may stand in front of the trunk: (d, options) -> module (B, d) -> (B, d).
STACKABLE: dict[str, Callable[[int, CrossOptions], nn.Module]] = {"cross": Cross, "cross_v2": cross_v2}

BRANCHES = {
    "wide": BranchEntry(
        "first-order weights and hashed crosses (Cheng et al. 2016)",
        lambda sizes, m: Wide(sizes.layout, sizes.logits, m.wide),
    ),
    "fm": BranchEntry(
        "second-order interactions of all pairs (Guo et al. 2017)",
        lambda sizes, _: FM(sizes.logits, sizes.fields[1]),
        reads_fields=True,
    ),
    "cross": BranchEntry(
        "DCN's cross network (Wang et al. 2017)",
        lambda sizes, m: CrossBranch(sizes.width, Cross(sizes.width, m.cross)),
    ),
    "cross_v2": BranchEntry(
        "DCN V2's cross network: full, low rank or a mixture (Wang et al. 2021)",
        lambda sizes, m: CrossBranch(sizes.width, cross_v2(sizes.width, m.cross)),
    ),
    "cin": BranchEntry(
        "xDeepFM's compressed interaction network (Lian et al. 2018)",
        lambda sizes, m: CIN(sizes.fields[0], m.cin_layers),
        reads_fields=True,
    ),
}


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
