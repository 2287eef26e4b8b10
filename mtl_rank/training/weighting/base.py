"""What a lambda strategy is."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Weighted(NamedTuple):
    """total: scalar with gradient; lambdas: (T,) the factor on each task's loss, without gradient."""

    total: Tensor
    lambdas: Tensor


class Weighting(nn.Module):
    """Makes one total of the tasks' losses: d total / d L_t = lambda_t.

    It sees unweighted per-task means, no model. A loss of exactly 0 says that the batch has no row of that task.
    Its state, if it has any, is in parameters and buffers: it is in checkpoints, the optimizer trains the
    parameters without weight decay, and as losses are those of the global batch, so are they in every process.

    needs_gramian: whether it wants the inner products of the tasks' gradients (training/gradients.py).

    Shape: losses (T,), gramian (T, T) -> Weighted
    """

    needs_gramian: ClassVar[bool] = False

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        raise NotImplementedError


def weighted_sum(lambdas: Tensor, losses: Tensor) -> Weighted:
    """total = sum_t lambda_t L_t."""
    return Weighted((lambdas * losses).sum(), lambdas)


class Steps(nn.Module):
    """Counts training steps; the count is in checkpoints. Shape: -> the number of steps before this one."""

    done: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def forward(self) -> int:
        step = int(self.done)
        if self.training:
            self.done += 1
        return step
