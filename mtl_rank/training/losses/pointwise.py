"""What an error on one row costs. z: logits or values, y: targets; shape of each: (B, K), (B, K) -> (B, K).

Targets of a binary task may lie between 0 and 1 (label smoothing). p = sigmoid(z).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from mtl_rank.config import Loss


def bce(_: Loss, z: Tensor, y: Tensor) -> Tensor:
    """-(y log p + (1 - y) log(1 - p))"""
    return F.binary_cross_entropy_with_logits(z, y, reduction="none")


def weighted_bce(loss: Loss, z: Tensor, y: Tensor) -> Tensor:
    """-(w1 y log p + w0 (1 - y) log(1 - p))"""
    return -(loss.w1 * y * F.logsigmoid(z) + loss.w0 * (1 - y) * F.logsigmoid(-z))


def focal(loss: Loss, z: Tensor, y: Tensor) -> Tensor:
    """-(alpha (1 - p)^gamma y log p + (1 - alpha) p^gamma (1 - y) log(1 - p))  (Lin et al. 2017, eq. 5)"""
    log_p, log_rest = F.logsigmoid(z), F.logsigmoid(-z)
    # A power of 1 - p has no gradient at p = 1 for gamma < 1; the exponential of its logarithm has.
    positive = loss.alpha * torch.exp(loss.gamma * log_rest) * y * log_p
    negative = (1 - loss.alpha) * torch.exp(loss.gamma * log_p) * (1 - y) * log_rest
    return -(positive + negative)


def mse(_: Loss, z: Tensor, y: Tensor) -> Tensor:
    """(z - y)^2"""
    return (z - y) ** 2


def huber(loss: Loss, z: Tensor, y: Tensor) -> Tensor:
    """(z - y)^2 / 2 up to |z - y| = delta, then the line delta (|z - y| - delta / 2)  (Huber 1964)"""
    return F.huber_loss(z, y, reduction="none", delta=loss.delta)


# The log-normal likelihood is squared error between the mean of the logarithms and the logarithm.
LOSSES: Mapping[str, Callable[[Loss, Tensor, Tensor], Tensor]] = {
    "bce": bce,
    "weighted_bce": weighted_bce,
    "focal": focal,
    "mse": mse,
    "huber": huber,
    "lognormal": mse,
}
