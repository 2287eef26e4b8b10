"""Layers that run many small networks as one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.config import Model
from mtl_rank.nn.dice import Dice

# Kernels for products with so few columns add up some rows of a batch in another order than others, unless sizes
# are multiples of four. A row's score must not depend on where in a batch it stands: zeros make up the sizes.
_NARROW = 11


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x + b, the same to the last bit wherever in the batch a row stands: (..., n_in) -> (..., n_out)."""
    n_out, n_in = weight.shape
    more = -n_in % 4 if n_out <= _NARROW else 0
    if not more:
        return F.linear(x, weight, bias)
    return F.linear(F.pad(x, (0, more)), F.pad(weight, (0, more)), bias)


@dataclass(frozen=True)
class LayerOptions:
    """What stands between the matrices of a network: matrix, norm, activation, dropout.

    residual: a layer that keeps its width adds its input to its output.
    """

    dropout: float = 0.0
    activation: str = "relu"
    norm: str = "none"
    residual: bool = False

    @staticmethod
    def of(model: Model) -> "LayerOptions":
        return LayerOptions(model.dropout, model.activation, model.norm, model.residual)


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
        own = x.transpose(0, 1)
        if own.dtype == torch.bfloat16:
            # Of a strided view, the product for the weights' gradient makes a transposed copy in bf16, which
            # takes three times as long as the product.
            own = own.contiguous()
        n_out = self.weight.shape[2]
        more = 0 if n_out <= 4 or n_out > _NARROW else -n_out % 4
        if not more:
            return torch.baddbmm(self.bias, own, self.weight).transpose(0, 1)
        weight, bias = F.pad(self.weight, (0, more)), F.pad(self.bias, (0, more))
        return torch.baddbmm(bias, own, weight).transpose(0, 1)[..., :n_out]


class Linear(nn.Linear):
    """y = W x + b, the same to the last bit wherever in the batch a row stands.

    Shape: (..., n_in) -> (..., n_out)
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class PerTask(nn.Module):
    """A scalar per task from one vector for all: w_t . x.

    Shape: (B, n_in) -> (B, T)
    """

    def __init__(self, n_in: int, tasks: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(n_in, 1))
        self.weight = nn.Parameter(torch.empty(tasks, n_in).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        # One product per task: see _NARROW.
        return torch.bmm(x.expand(len(self.weight), -1, -1), self.weight.unsqueeze(2)).squeeze(2).T


class StackedLinear(Linear):
    """Several linear layers that read the same input, as one product; `heights` are their outputs.

    Shape: (B, n_in) -> (B, sum of heights)
    """

    def __init__(self, n_in: int, heights: Sequence[int]) -> None:
        super().__init__(n_in, sum(heights))
        self.heights = list(heights)

    def matrices(self) -> Sequence[Tensor]:
        """The matrix of each, (height, n_in)."""
        return torch.split(self.weight, self.heights)


class GroupedPReLU(nn.Module):
    """max(0, x) + a min(0, x), a per channel of each network (He et al. 2015, eq. 1).

    Shape: (B, G, n) -> (B, G, n)
    """

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((groups, width), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope.to(x.dtype) * x)


class GroupedBatchNorm(nn.Module):
    """Batch normalisation of every channel of each network; a batch of one row uses the moving moments.

    Shape: (B, G, n) -> (B, G, n)
    """

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(groups * width)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        flat = x.flatten(1)
        if self.training and len(x) > 1:
            return norm(flat).view_as(x)  # type: ignore[no-any-return]
        moments = norm.running_mean, norm.running_var
        return F.batch_norm(flat, *moments, norm.weight, norm.bias, eps=norm.eps).view_as(x)


class GroupedLayerNorm(nn.Module):
    """Layer normalisation of each network's vector, scale and shift of its own.

    Shape: (B, G, n) -> (B, G, n)
    """

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(groups, width))
        self.bias = nn.Parameter(torch.zeros(groups, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[2:]) * self.weight + self.bias


class Residual(nn.Module):
    """x + inner(x)"""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inner(x)
        return out


# (networks, width) -> module (B, networks, width) -> (B, networks, width)
ACTIVATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "relu": lambda _groups, _width: nn.ReLU(),
    "prelu": GroupedPReLU,
    "dice": Dice,
    "gelu": lambda _groups, _width: nn.GELU(),
    "silu": lambda _groups, _width: nn.SiLU(),
}
NORMS: dict[str, Callable[[int, int], nn.Module] | None] = {
    "none": None,
    "batch": GroupedBatchNorm,
    "layer": GroupedLayerNorm,
}


def hidden_layers(groups: int, widths: Sequence[int], options: LayerOptions) -> nn.Sequential:
    """Hidden layers for G networks: widths[0] is the input's; (B, G, widths[0]) -> (B, G, widths[-1])."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layer = [GroupedLinear(groups, n_in, n_out), *after_linear(groups, n_out, options)]
        layers += [Residual(nn.Sequential(*layer))] if options.residual and n_in == n_out else layer
    return nn.Sequential(*layers)


def after_linear(groups: int, width: int, options: LayerOptions) -> list[nn.Module]:
    """What follows the matrix of a hidden layer of G networks."""
    norm = NORMS[options.norm]
    activation = ACTIVATIONS[options.activation](groups, width)
    return [*([norm(groups, width)] if norm else []), activation, nn.Dropout(options.dropout)]
