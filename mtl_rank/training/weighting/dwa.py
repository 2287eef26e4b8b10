"""Lambdas by how fast each loss falls from epoch to epoch."""

import torch
from torch import Tensor

from mtl_rank.training.weighting.base import Steps, Weighted, Weighting, weighted_sum


class DynamicWeightAverage(Weighting):
    """lambda_t = T softmax_t(r_t / 2), r_t = mean loss of the last epoch / of the one before (Liu et al. 2019, eq. 7).

    A task whose loss falls slower gets more. All lambdas are 1 in the first two epochs. The mean is over the batches
    that have rows of the task; without any in an epoch r_t is 1.
    """

    TEMPERATURE = 2.0
    total: Tensor
    batches: Tensor
    last: Tensor
    before: Tensor

    def __init__(self, tasks: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.steps = Steps()
        self._steps_per_epoch = steps_per_epoch
        for name in ("total", "batches", "last", "before"):
            self.register_buffer(name, torch.zeros(tasks))

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        step = self.steps()
        if self.training:
            if step and step % self._steps_per_epoch == 0:
                self._end_epoch()
            self.total += losses.detach()
            self.batches += losses > 0
        known = (self.last > 0) & (self.before > 0)
        rates = torch.where(known, self.last / torch.where(known, self.before, 1), 1)
        return weighted_sum(len(losses) * torch.softmax(rates / self.TEMPERATURE, dim=0), losses)

    def _end_epoch(self) -> None:
        self.before.copy_(self.last)
        self.last.copy_(self.total / self.batches.clamp(min=1))
        self.total.zero_()
        self.batches.zero_()
