"""The cross networks: DCN and DCN V2. Each layer raises the degree of the input's interactions by one."""

import math

import torch
from torch import Tensor, nn

from mtl_rank.config.model import CrossOptions
from mtl_rank.nn.layers import Linear


class Cross(nn.Module):
    """DCN's cross layers: x_{l+1} = x_0 (w_l . x_l) + b_l + x_l (Wang et al. 2017, eq. 3).

    Shape: (B, d) -> (B, d)
    """

    def __init__(self, width: int, options: CrossOptions) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform(width, (options.layers, width)))
        self.bias = nn.Parameter(torch.zeros(options.layers, width))

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for weight, bias in zip(self.weight.unbind(), self.bias.unbind(), strict=True):
            x = x0 * (x * weight).sum(dim=1, keepdim=True) + bias + x
        return x


class CrossV2(nn.Module):
    """DCN V2's cross layers: x_{l+1} = x_0 * (W_l x_l + b_l) + x_l (Wang et al. 2021, eq. 1).

    With a rank, W_l = U_l V_l^T (eq. 2): two thin products.

    Shape: (B, d) -> (B, d)
    """

    def __init__(self, width: int, options: CrossOptions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_matrix(width, options.rank) for _ in range(options.layers))

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for layer in self.layers:
            x = x0 * layer(x) + x
        return x


class CrossMixture(nn.Module):
    """DCN V2's mixture of low-rank experts (Wang et al. 2021, eq. 3-4), g = tanh:

    x_{l+1} = sum_i G_i(x_l) [x_0 * (U_i g(C_i g(V_i^T x_l)) + b_l)] + x_l, G = softmax of a linear layer.

    The gates sum to one, so that the experts' last products are one product of what the gates weighed.

    Shape: (B, d) -> (B, d)
    """

    def __init__(self, width: int, rank: int, options: CrossOptions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _MixtureLayer(width, rank, options.experts) for _ in range(options.layers)
        )

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for layer in self.layers:
            x = x0 * layer(x) + x
        return x


class _MixtureLayer(nn.Module):
    """sum_i G_i(x) (U_i g(C_i g(V_i^T x)) + b); (B, d) -> (B, d)"""

    def __init__(self, width: int, rank: int, experts: int) -> None:
        super().__init__()
        self.split = [experts * rank, experts]
        # V of all experts and the gate in one product; the gate alone has a bias.
        self.v = Linear(width, sum(self.split), bias=False)
        self.gate_bias = nn.Parameter(torch.zeros(experts))
        self.c = nn.Parameter(_uniform(rank, (experts, rank, rank)))
        self.u = Linear(experts * rank, width)

    def forward(self, x: Tensor) -> Tensor:
        inner, gate_logits = torch.split(self.v(x), self.split, dim=1)
        gates = torch.softmax(gate_logits + self.gate_bias, dim=1)
        inner = torch.tanh(inner).reshape(-1, *self.c.shape[:2]).transpose(0, 1)
        outer = torch.tanh(torch.bmm(inner, self.c.to(inner.dtype))).transpose(0, 1)
        mixed: Tensor = self.u((outer * gates.unsqueeze(2).to(outer.dtype)).flatten(1))
        return mixed


def cross_v2(width: int, options: CrossOptions) -> nn.Module:
    """The form of DCN V2 that the options ask for."""
    if options.experts > 1 and options.rank is not None:
        return CrossMixture(width, options.rank, options)
    return CrossV2(width, options)


def _matrix(width: int, rank: int | None) -> nn.Module:
    if rank is None:
        return Linear(width, width)
    return nn.Sequential(Linear(width, rank, bias=False), Linear(rank, width))


def _uniform(n_in: int, shape: tuple[int, ...]) -> Tensor:
    bound = 1 / math.sqrt(n_in)
    return torch.empty(shape).uniform_(-bound, bound)
