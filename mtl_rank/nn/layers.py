"""Layers that run many small networks as one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtl_rank.config import Model


@dataclass(frozen=True)
class LayerOptions:
    """What stands between the matrices of a network."""

    dropout: float = 0.0

    @staticmethod
    def of(model: Model) -> "LayerOptions":
        return LayerOptions(dropout=model.dropout)


class GroupedLinear(nn.Module):
    """G independent linear layers in one batched product: y_g = x_g W_g + b_g.

    Shape: (B, G, n_in) -> (B, G, n_out)
    """

    def __init__(self, groups: int, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(groups, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, 1, n_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


def hidden_layers(groups: int, widths: Sequence[int], options: LayerOptions) -> nn.Sequential:
    """Hidden layers for G networks: widths[0] is the input's; (B, G, widths[0]) -> (B, G, widths[-1])."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [GroupedLinear(groups, n_in, n_out), *after_linear(options)]
    return nn.Sequential(*layers)


def after_linear(options: LayerOptions) -> list[nn.Module]:
    """What follows each matrix of a hidden layer."""
    return [nn.ReLU(), nn.Dropout(options.dropout)]
