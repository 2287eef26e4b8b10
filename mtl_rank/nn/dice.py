"""Dice, the activation of DIN."""

import torch
from torch import Tensor, nn


class Dice(nn.Module):
    """p s + (1 - p) alpha s, p = sigmoid of s normalised over the batch (Zhou et al. 2018, eq. 5); alpha per channel.

    In training mean and variance are those of the positions where `mask` is True (all without one), in evaluation
    their moving means.

    Shape: (..., channels), mask (...) -> (..., channels)
    """

    EPS = 1e-8
    MOMENTUM = 0.1
    mean: Tensor
    variance: Tensor

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, s: Tensor, mask: Tensor | None = None) -> Tensor:
        values = s.float()
        if self.training:
            with torch.autocast(s.device.type, enabled=False):
                mean, variance = self._moments(values, mask)
        else:
            mean, variance = self.mean, self.variance
        p = torch.sigmoid((values - mean) * torch.rsqrt(variance + self.EPS))
        return (values * (self.alpha + p * (1 - self.alpha))).to(s.dtype)

    def _moments(self, s: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance of this batch; the moving means follow, unless there is no position at all."""
        rows = s.reshape(-1, self.alpha.numel())
        there = rows.new_ones(len(rows)) if mask is None else mask.flatten().to(rows.dtype)
        count = there.sum()
        share = there / count.clamp(min=1)
        mean = share @ rows
        variance = share @ (rows - mean) ** 2
        moments = mean.view_as(self.mean), variance.view_as(self.variance)
        with torch.no_grad():
            momentum = self.MOMENTUM * (count > 0)
            for moving, of_batch in zip((self.mean, self.variance), moments, strict=True):
                moving.lerp_(of_batch, momentum)
        return moments
