"""How the matrices of a network start, by name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mtl_rank.nn.layers import GroupedLinear, PerTask, StackedLinear

# (n_out, n_in), in place. `default` is torch's own: uniform, bound 1 / sqrt(n_in), biases too.
INITS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "default": None,
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "kaiming_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}


@torch.no_grad()
def initialise(module: nn.Module, name: str) -> None:
    """Draw every matrix of `module` anew and set its biases to zero; `default` changes nothing.

    Where one product holds many networks, each network's matrix is drawn on its own.
    """
    draw = INITS[name]
    if draw is None:
        return
    for part in module.modules():
        if isinstance(part, nn.Linear):
            for weight in part.matrices() if isinstance(part, StackedLinear) else [part.weight]:
                draw(weight)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, PerTask):
            for row in part.weight:
                draw(row.unsqueeze(0))
        elif isinstance(part, GroupedLinear):
            for weight in part.weight:
                draw(weight.T)
            part.bias.zero_()
