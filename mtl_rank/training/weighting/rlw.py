"""Lambdas drawn anew in every step."""

import numpy as np
import torch
from torch import Tensor

from mtl_rank.training.weighting.base import Steps, Weighted, Weighting, weighted_sum


class RandomLossWeighting(Weighting):
    """lambda_t = T softmax_t(n_t), n_t standard normal, drawn anew in every step (Lin et al. 2021, sec. 3).

    The draw depends on the seed and the number of the step alone: it is the same in every process and after a
    resume, and takes no random number from dropout.
    """

    def __init__(self, tasks: int, seed: int) -> None:
        super().__init__()
        self.steps = Steps()
        self._tasks = tasks
        self._seed = seed

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        normal = np.random.default_rng((self._seed, self.steps())).standard_normal(self._tasks)
        lambdas = self._tasks * torch.softmax(torch.from_numpy(normal), dim=0)
        return weighted_sum(lambdas.to(losses), losses)
