"""What several processes must agree on for one global batch to be trained as if one process had it."""

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of `values` over all processes, without gradient; the values themselves with one process."""
    size = world_size()
    if size == 1:
        return values.detach()
    total = values.detach().to(torch.float64)
    dist.all_reduce(total)
    return (total / size).to(values.dtype)


def with_global_value(values: Tensor) -> Tensor:
    """The mean over all processes as value, this process's own gradient.

    Gradients are averaged over processes afterwards; what depends on the value (a learned lambda, a moving
    mean) is then the same everywhere.
    """
    if world_size() == 1:
        return values
    return values + (mean_over_processes(values) - values).detach()
