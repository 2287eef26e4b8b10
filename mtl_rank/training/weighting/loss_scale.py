"""Lambdas that make every task pull alike, whatever the scale of its loss."""

import torch
from torch import Tensor

from mtl_rank.training.weighting.base import Weighted, Weighting, weighted_sum


class LossScale(Weighting):
    """lambda_t = c_t / ema(L_t), without gradient, rescaled so that the lambdas sum to T.

    Each task then pulls with the same relative force c_t, whatever the scale of its loss. The mean is
    bias-corrected, so that the first batches count as they should; a batch without rows for a task
    (loss exactly 0) leaves its mean as it is.
    """

    DECAY = 0.98
    multipliers: Tensor
    mean: Tensor
    weight: Tensor

    def __init__(self, multipliers: Tensor) -> None:
        super().__init__()
        self.register_buffer("multipliers", multipliers)
        self.register_buffer("mean", torch.zeros_like(multipliers))
        self.register_buffer("weight", torch.zeros_like(multipliers))

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        if self.training:
            self._update(losses.detach())
        # A task that has not been seen yet has no scale: it counts like a loss of 1 until it is.
        scale = torch.where(self.weight > 0, self.mean / self.weight.clamp(min=1e-12), 1)
        lambdas = self.multipliers / scale.clamp(min=1e-8)
        return weighted_sum(lambdas * (len(lambdas) / lambdas.sum()), losses)

    def _update(self, losses: Tensor) -> None:
        decay = torch.where(losses > 0, self.DECAY, 1.0)
        self.mean.mul_(decay).add_((1 - decay) * losses)
        self.weight.mul_(decay).add_(1 - decay)
