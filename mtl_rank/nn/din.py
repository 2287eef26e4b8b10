"""Deep interest network: the history weighed by its likeness to the candidate (Zhou et al. 2018)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtl_rank.nn.dice import Dice
from mtl_rank.nn.history import Encoded, History, HistoryEncoder
from mtl_rank.nn.layers import Linear, linear


class DIN(HistoryEncoder):
    """interest = sum_j a(v_j, q) v_j over what is there, q the candidate (eq. 3). The weights are no softmax: their
    sum says how strong the interest is.

    Shape: History -> (B, dim)
    """

    def __init__(self, dim: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.unit = AttentionUnit(dim, layers)

    def forward(self, history: History) -> Encoded:
        weights = self.attention(history).unsqueeze(1)
        return Encoded((weights.to(history.keys.dtype) @ history.keys).squeeze(1))

    def attention(self, history: History) -> Tensor:
        """(B, L) the weight of each position, 0 where there is none."""
        assert history.target is not None
        weights: Tensor = self.unit(history.keys, history.target, history.mask)
        return weights * history.mask


class AttentionUnit(nn.Module):
    """a = MLP([k, q, q - k, q * k]) with Dice.

    The first layer's product is taken apart: k and q - k, as q and q - k, are one product each, and that of q is
    needed once per row, not per position.

    Shape: keys (B, L, dim), query (B, dim), mask (B, L) -> (B, L)
    """

    def __init__(self, dim: int, layers: Sequence[int]) -> None:
        super().__init__()
        first, *_ = layers
        bound = 1 / math.sqrt(4 * dim)
        self.weight = nn.Parameter(torch.empty(first, 4 * dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(first).uniform_(-bound, bound))
        self.rest = nn.ModuleList(Linear(n_in, n_out) for n_in, n_out in pairwise(layers))
        self.activations = nn.ModuleList(Dice(width) for width in layers)
        self.output = Linear(layers[-1], 1)

    def forward(self, keys: Tensor, query: Tensor, mask: Tensor) -> Tensor:
        of_key, of_query, of_difference, of_product = self.weight.chunk(4, dim=1)
        of_positions = torch.cat([of_key - of_difference, of_product], dim=1)
        both = torch.cat([keys, keys * query.unsqueeze(1)], dim=2)
        by_row = linear(query, of_query + of_difference, self.bias)
        hidden = linear(both, of_positions) + by_row.unsqueeze(1)
        for layer, activation in zip(self.rest, self.activations, strict=False):
            hidden = layer(activation(hidden, mask))
        weights: Tensor = self.output(self.activations[-1](hidden, mask))
        return weights.squeeze(2).float()
