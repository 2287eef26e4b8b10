"""Trunks: from the input vector e to one vector per task. Shape of each: (B, d) -> (B, T, width)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_rank.nn.layers import hidden_layers


class WideFirst(nn.Module):
    """The first layers of K networks as one matrix product, then their own layers: f_1(e) .. f_K(e).

    Extra linear outputs (the gates of MMoE) ride along in the same product.

    Shape: (B, d) -> (B, K, widths[-1]), (B, extra)
    """

    def __init__(
        self, n_in: int, networks: int, widths: Sequence[int], dropout: float, extra: int = 0
    ) -> None:
        super().__init__()
        self.networks = networks
        self.split = [networks * widths[0], extra]
        self.first = nn.Linear(n_in, sum(self.split))
        self.after = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))
        self.rest = hidden_layers(networks, widths, dropout)

    def forward(self, e: Tensor) -> tuple[Tensor, Tensor]:
        hidden, extra = self.first(e).split(self.split, dim=1)
        return self.rest(self.after(hidden.unflatten(1, (self.networks, -1)))), extra


class SharedBottom(nn.Module):
    """One network for all tasks (Caruana 1997)."""

    def __init__(self, n_in: int, tasks: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.tasks = tasks
        self.width = widths[-1]
        self.bottom = WideFirst(n_in, 1, widths, dropout)

    def forward(self, e: Tensor) -> Tensor:
        shared: Tensor = self.bottom(e)[0]
        return shared.expand(-1, self.tasks, -1)


class Separate(nn.Module):
    """A network of its own for each task; only the embeddings are shared. With one task: the plain DNN."""

    def __init__(self, n_in: int, tasks: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.width = widths[-1]
        self.networks = WideFirst(n_in, tasks, widths, dropout)

    def forward(self, e: Tensor) -> Tensor:
        own: Tensor = self.networks(e)[0]
        return own


class MMoE(nn.Module):
    """Multi-gate mixture of experts: sum_k g_k^t(e) f_k(e), g^t = softmax(W^t e + b^t) (Ma et al. 2018, eq. 5-7).

    NOTE[DIFF] the gates have a bias, which the paper does not write: the mixture of a mean row is then free.
    """

    def __init__(self, n_in: int, tasks: int, experts: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.shape = (tasks, experts)
        self.width = widths[-1]
        self.experts = WideFirst(n_in, experts, widths, dropout, extra=tasks * experts)

    def forward(self, e: Tensor) -> Tensor:
        experts, gate_logits = self.experts(e)
        gates = torch.softmax(gate_logits.unflatten(1, self.shape), dim=2)
        mixed: Tensor = gates.to(experts.dtype) @ experts
        return mixed
