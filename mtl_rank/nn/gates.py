"""What the gates of a mixture do, in two numbers per task."""

import math

import torch
from torch import Tensor


def utilisation(gates: Tensor) -> Tensor:
    """(B, T, experts) -> (T, experts): the mean weight of each expert."""
    return gates.mean(dim=0)


def entropy(gates: Tensor) -> Tensor:
    """(B, T, experts) -> (T,): the mean entropy of a row's weights over that of even ones.

    1 = every expert alike, 0 = one expert alone; 1 with a single expert.
    """
    experts = gates.shape[2]
    if experts == 1:
        return torch.ones(gates.shape[1], dtype=gates.dtype)
    return -torch.xlogy(gates, gates).sum(dim=2).mean(dim=0) / math.log(experts)
