"""Lambdas that make every loss fall at the same relative speed."""

import torch
from torch import Tensor, nn

from mtl_rank.training.weighting.base import Weighted, Weighting


class Famo(Weighting):
    """Fast adaptive multitask optimization (Liu et al. 2023, algorithm 1).

    lambda_t = T (z_t / L_t) / sum_s (z_s / L_s), z = softmax(xi): the direction that lowers log L_t by shares z_t.
    xi falls by the gradient of sum_t z_t (log L_t(before) - log L_t(after)): tasks that gained more get less.

    NOTE[DIFF] "after" is the loss of the next batch rather than a second look at the same one, which would cost
    another forward pass: the differences telescope, so that what is noise of a batch cancels in the next step.
    NOTE[DIFF] the lambdas sum to T, not to 1, as they do under every other method.
    """

    DECAY = 1e-3
    before: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.xi = nn.Parameter(torch.zeros(tasks))
        self.register_buffer("before", torch.zeros(tasks))

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        found = losses.detach()
        present = found > 0
        z = torch.softmax(self.xi, dim=0)
        pull = torch.where(present, z.detach() / torch.where(present, found, 1), 0)
        lambdas = pull * (len(losses) / pull.sum().clamp(min=torch.finfo(pull.dtype).tiny))
        both = present & (self.before > 0)
        gain = torch.where(both, self.before, 1).log() - torch.where(both, found, 1).log()
        learned = (z * gain).sum() + self.DECAY / 2 * (self.xi**2).sum()
        if self.training:
            self.before.copy_(torch.where(present, found, self.before))
        return Weighted((lambdas * losses).sum() + learned, lambdas)
