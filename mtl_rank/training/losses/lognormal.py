"""Log-normal labels: the network predicts the logarithm of their mean."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_rank.training.distributed import mean_over_processes


class Spread(nn.Module):
    """How far the logarithms of a label lie from their mean, and so how far that mean is below the log of the mean.

    If log y is normal with mean m and deviation sigma, then log E[y] = m + sigma^2 / 2. A network whose output is
    log E[y] predicts a mean, which is calibrated, where one whose output is m predicts a median. The likelihood is
    that of m = log E[y] - sigma^2 / 2, one sigma per task: its estimate given m is the deviation of the residuals,
    here pooled over batches by a moving sum.

    NOTE[DIFF] logarithms are log(1 + y), as everywhere for `transform: log1p`: a label of 0 is no infinity.
    NOTE[DIFF] the likelihood in units of 1 / (2 sigma^2) and without log sigma: squared error. It has the same
    minimum, and unlike the likelihood is never negative, which a weighting by loss scale could not take.

    stds: (K,) standard deviations by which the logarithms of each label were divided.

    Shape: (B, K), (B, K) -> (K,)
    """

    DECAY = 0.99
    stds: Tensor
    squares: Tensor
    freedom: Tensor

    def __init__(self, stds: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("stds", torch.tensor(stds), persistent=False)
        self.register_buffer("squares", torch.zeros(len(stds)))
        self.register_buffer("freedom", torch.zeros(len(stds)))

    @torch.no_grad()
    def update(self, errors: Tensor, counts: Tensor) -> None:
        """errors: output - target. counts: how much each row counts, 0 where the task is undefined.

        Deviations are taken within a batch: a shift of all outputs, such as this one, leaves them as they are. With
        several processes they are taken within each one's part of it, and pooled.
        """
        total = counts.sum(dim=0).clamp(min=torch.finfo(counts.dtype).tiny)
        mean = (counts * errors).sum(dim=0) / total
        squares = (counts * (errors - mean) ** 2).sum(dim=0)
        freedom = total - (counts**2).sum(dim=0) / total
        squares, freedom = mean_over_processes(torch.stack([squares, freedom]))
        self.squares.mul_(self.DECAY).add_(squares)
        self.freedom.mul_(self.DECAY).add_(freedom)

    def forward(self) -> Tensor:
        """(K,) sigma^2 / 2 in units of `stds`: by how much an output is above the mean of the logarithms."""
        variance = self.squares / self.freedom.clamp(min=1e-12)
        return self.stds * variance / 2
