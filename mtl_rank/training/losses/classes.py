"""Losses of labels that are one of several classes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mtl_rank.nn.heads import log1mexp


@dataclass(frozen=True)
class ClassLoss:
    """-((1 - s) log p_y + s sum_k r_k log p_k): s the smoothing, r the rates of the classes in training.

    task: whose label y is the position of its class. columns: of its logits.

    Shape: logits (B, C), labels (B, T) without NaN -> (B,)
    """

    task: int
    kind: str
    columns: tuple[int, ...]
    smoothing: float
    rates: tuple[float, ...]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = class_log_probabilities(self.kind, logits[:, list(self.columns)])
        right = log_p.gather(1, labels[:, self.task].long().unsqueeze(1)).squeeze(1)
        if not self.smoothing:
            return -right
        everywhere = log_p @ log_p.new_tensor(self.rates)
        return -torch.lerp(right, everywhere, self.smoothing)


def class_log_probabilities(kind: str, logits: Tensor) -> Tensor:
    """log P(y = k): log-softmax of K logits, or of differences of K - 1 cumulative ones, which fall.

    Shape: multiclass (B, K), ordinal (B, K - 1) -> (B, K)
    """
    if kind == "multiclass":
        return F.log_softmax(logits, dim=1)
    above, below = F.logsigmoid(logits), F.logsigmoid(-logits)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): exact however small it is.
    between = above[:, :-1] + below[:, 1:] + log1mexp(logits[:, 1:] - logits[:, :-1])
    return torch.cat([below[:, :1], between, above[:, -1:]], dim=1)
