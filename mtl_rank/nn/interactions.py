"""Products of field vectors: factorisation machine and compressed interaction network."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_rank.nn.branch import Branch, BranchOutput, Inputs
from mtl_rank.nn.layers import PerTask, linear

# Rows whose intermediate products stay in a processor's cache.
_CIN_ROWS = 32


class FM(Branch):
    """Second-order interactions of all pairs of fields (Guo et al. 2017, eq. 1; the sum over pairs is Rendle's):

    sum_{i<j} <v_i, v_j> x_i x_j = sum over dim of 1/2 [(sum_i x_i v_i)^2 - sum_i (x_i v_i)^2].

    NOTE[DIFF] with several tasks each weighs the dim interactions by a vector of its own, which starts at ones:
    a scalar of its own is all that the paper's one task needs, and several tasks cannot share it.

    Shape: Inputs -> logits (B, T)
    """

    def __init__(self, tasks: int, dim: int) -> None:
        super().__init__()
        self.of_tasks = PerTask(dim, tasks) if tasks > 1 else None
        if self.of_tasks is not None:
            nn.init.ones_(self.of_tasks.weight)

    def forward(self, inputs: Inputs) -> BranchOutput:
        fields = inputs.fields
        assert fields is not None
        total = fields.sum(dim=1)
        pairs = 0.5 * (total * total - (fields * fields).sum(dim=1))
        logits = pairs.sum(dim=1, keepdim=True) if self.of_tasks is None else self.of_tasks(pairs)
        return BranchOutput(logits=logits.float())


class CIN(Branch):
    """Compressed interaction network of xDeepFM (Lian et al. 2018, eq. 6-8):

    X^k_h = sum_ij W^{k,h}_ij (X^{k-1}_i * X^0_j), and of each feature map the sum over dim: p^k_h.

    Shape: Inputs, fields (B, m, dim) -> vector (B, sum of the layers)
    """

    def __init__(self, fields: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(layers)
        self.weights = nn.ParameterList()
        for maps_before, maps in zip([fields, *layers], layers, strict=False):
            bound = 1 / math.sqrt(maps_before * fields)
            self.weights.append(torch.empty(maps, maps_before * fields).uniform_(-bound, bound))

    def forward(self, inputs: Inputs) -> BranchOutput:
        assert inputs.fields is not None
        fields = inputs.fields
        # Exporters take the number of rows for a constant when it decides the number of parts.
        whole = torch.compiler.is_exporting() or not len(fields)
        parts = [fields] if whole else torch.split(fields, _CIN_ROWS)
        return BranchOutput(vector=torch.cat([self._pooled(part) for part in parts]))

    def _pooled(self, fields: Tensor) -> Tensor:
        """(B, m, dim) -> (B, maps of all layers): the sum over i in one product for all h and j, then that over j."""
        rows, m, dim = fields.shape
        x0 = fields.transpose(1, 2).reshape(rows * dim, m)
        x, pooled = x0, []
        for weight in self.weights:
            maps = len(weight)
            by_field = weight.view(maps, x.shape[1], m).transpose(1, 2).reshape(maps * m, x.shape[1])
            over_i = linear(x, by_field).view(rows * dim, maps, m)
            x = torch.bmm(over_i, x0.unsqueeze(2).to(over_i.dtype)).squeeze(2)
            pooled.append(x.view(rows, dim, maps).sum(dim=1, dtype=torch.float32))
        return torch.cat(pooled, dim=1)
