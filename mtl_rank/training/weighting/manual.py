"""Fixed lambdas, and lambdas on a fixed schedule."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mtl_rank.training.weighting.base import Steps, Weighted, Weighting, weighted_sum

Points = Sequence[tuple[float, float]]


class Manual(Weighting):
    """total = sum_t lambda_t L_t with fixed lambda_t."""

    lambdas: Tensor

    def __init__(self, lambdas: Tensor) -> None:
        super().__init__()
        self.register_buffer("lambdas", lambdas)

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        return weighted_sum(self.lambdas, losses)


class Scheduled(Weighting):
    """lambda_t(x) = lambda_t f_t(x) at epoch x, a fraction within an epoch.

    f_t goes in straight lines through its points (epoch, factor) and stays at the first and last of them: a
    warm-up over the first epoch is (0, 0), (1, 1).

    points: per task, empty = constant.
    """

    lambdas: Tensor

    def __init__(self, lambdas: Tensor, points: Sequence[Points], steps_per_epoch: int) -> None:
        super().__init__()
        self.register_buffer("lambdas", lambdas)
        self.steps = Steps()
        self._steps_per_epoch = steps_per_epoch
        self._lines = [
            tuple(zip(*of_task, strict=True)) if of_task else ((0.0,), (1.0,)) for of_task in points
        ]

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        epoch = self.steps() / self._steps_per_epoch
        factors = [float(np.interp(epoch, epochs, values)) for epochs, values in self._lines]
        return weighted_sum(self.lambdas * torch.tensor(factors, device=losses.device), losses)


def manual(lambdas: Tensor, schedule: Mapping[int, Points], steps_per_epoch: int) -> Weighting:
    """schedule: points by position of the task."""
    if not schedule:
        return Manual(lambdas)
    return Scheduled(lambdas, [schedule.get(i, ()) for i in range(len(lambdas))], steps_per_epoch)
