"""Lambdas learned as the precision of each task."""

import torch
from torch import Tensor, nn

from mtl_rank.training.weighting.base import Weighted, Weighting


class Uncertainty(Weighting):
    """Homoscedastic uncertainty (Kendall et al. 2018, eq. 10): s_t = log sigma_t^2 is learned.

    Classification exp(-s_t) L_t + s_t / 2, regression exp(-s_t) L_t / 2 + s_t / 2. s_t is not clamped: its
    optimum log(2 L_t) is negative for every loss below 0.5. The total may be negative; it is no measure of
    quality. A task without rows in the batch (loss exactly 0) adds nothing, not even s_t / 2.
    """

    factor: Tensor

    def __init__(self, is_regression: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", torch.where(is_regression, 0.5, 1.0))
        self.log_variance = nn.Parameter(torch.zeros(len(is_regression)))

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        lambdas = self.factor * torch.exp(-self.log_variance)
        penalty = torch.where(losses > 0, self.log_variance / 2, 0)
        return Weighted((lambdas * losses + penalty).sum(), lambdas.detach())
