"""Lambdas that bring the tasks' gradients to comparable norms."""

import torch
from torch import Tensor, nn

from mtl_rank.training.weighting.base import Weighted, Weighting


class GradNorm(Weighting):
    """Gradient normalisation (Chen et al. 2018, eq. 1-2): lambdas are learned so that
    |lambda_t g_t| = mean_s |lambda_s g_s| * r_t^alpha, r_t = (L_t / L_t(0)) / mean_s (L_s / L_s(0)).

    Tasks that are behind pull harder. L_t(0) is the first loss of the task.

    NOTE[DIFF] lambda = T softmax(a) with a learned, instead of lambdas that are set back to the sum T after each
    step and may turn negative in it.
    NOTE[DIFF] |g_t| is the norm of the gradient at what the Gramian is of, in place of the weights of the last
    shared layer: in most models tasks mix that layer's units each in its own way.
    """

    needs_gramian = True
    ALPHA = 1.5
    first: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(tasks))
        self.register_buffer("first", torch.zeros(tasks))

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        assert gramian is not None
        found = losses.detach()
        if self.training:
            self.first.copy_(torch.where(self.first > 0, self.first, found))
        lambdas = len(losses) * torch.softmax(self.logits, dim=0)
        present = found > 0
        norms = (lambdas * gramian.diagonal().clamp(min=0).sqrt())[present]
        behind = found[present] / self.first[present]
        target = norms.detach().mean() * (behind / behind.mean()) ** self.ALPHA
        # Only the norms depend on the lambdas here, only the losses on the network.
        balance = (norms - target).abs().sum() if present.any() else norms.sum()
        return Weighted((lambdas.detach() * losses).sum() + balance, lambdas.detach())
