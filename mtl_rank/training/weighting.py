"""Lambda strategies: from per-task losses to one total."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_rank.config import ProjectConfig
from mtl_rank.errors import ConfigError, did_you_mean


class Weighted(NamedTuple):
    """total: scalar with gradient; lambdas: (T,) the factor on each task's loss, without gradient."""

    total: Tensor
    lambdas: Tensor


class Manual(nn.Module):
    """total = sum_t lambda_t L_t with fixed lambda_t.

    Shape: losses (T,) -> Weighted
    """

    lambdas: Tensor

    def __init__(self, lambdas: Tensor) -> None:
        super().__init__()
        self.register_buffer("lambdas", lambdas)

    def forward(self, losses: Tensor) -> Weighted:
        return Weighted((self.lambdas * losses).sum(), self.lambdas)


class LossScale(nn.Module):
    """lambda_t = c_t / ema(L_t), without gradient, rescaled so that the lambdas sum to T.

    Each task then pulls with the same relative force c_t, whatever the scale of its loss. The mean is
    bias-corrected, so that the first batches count as they should; a batch without rows for a task
    (loss exactly 0) leaves its mean as it is.

    Shape: losses (T,) -> Weighted
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

    def forward(self, losses: Tensor) -> Weighted:
        if self.training:
            self._update(losses.detach())
        # A task that has not been seen yet has no scale: it counts like a loss of 1 until it is.
        scale = torch.where(self.weight > 0, self.mean / self.weight.clamp(min=1e-12), 1)
        lambdas = self.multipliers / scale.clamp(min=1e-8)
        lambdas = lambdas * (len(lambdas) / lambdas.sum())
        return Weighted((lambdas * losses).sum(), lambdas)

    def _update(self, losses: Tensor) -> None:
        decay = torch.where(losses > 0, self.DECAY, 1.0)
        self.mean.mul_(decay).add_((1 - decay) * losses)
        self.weight.mul_(decay).add_(1 - decay)


class Uncertainty(nn.Module):
    """Homoscedastic uncertainty (Kendall et al. 2018, eq. 10): s_t = log sigma_t^2 is learned.

    Classification exp(-s_t) L_t + s_t / 2, regression exp(-s_t) L_t / 2 + s_t / 2. s_t is not clamped: its
    optimum log(2 L_t) is negative for every loss below 0.5. The total may be negative; it is no measure of
    quality. A task without rows in the batch (loss exactly 0) adds nothing, not even s_t / 2.

    Shape: losses (T,) -> Weighted
    """

    factor: Tensor

    def __init__(self, is_regression: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", torch.where(is_regression, 0.5, 1.0))
        self.log_variance = nn.Parameter(torch.zeros(len(is_regression)))

    def forward(self, losses: Tensor) -> Weighted:
        lambdas = self.factor * torch.exp(-self.log_variance)
        penalty = torch.where(losses > 0, self.log_variance / 2, 0)
        return Weighted((lambdas * losses + penalty).sum(), lambdas.detach())


@dataclass(frozen=True)
class Method:
    """build: (manual lambdas (T,), is_regression (T,)) -> module. takes_lambdas: whether it uses the first."""

    summary: str
    build: Callable[[Tensor, Tensor], nn.Module]
    takes_lambdas: bool


METHODS: Mapping[str, Method] = {
    "manual": Method("fixed lambdas", lambda lambdas, _: Manual(lambdas), True),
    "loss_scale": Method(
        "every task pulls with the same relative force", lambda lambdas, _: LossScale(lambdas), True
    ),
    "uncertainty": Method(
        "learned homoscedastic uncertainty (Kendall 2018)",
        lambda _, regression: Uncertainty(regression),
        False,
    ),
}


def check_weighting(config: ProjectConfig) -> None:
    """Raises ConfigError for an unknown method, or lambdas that the method would ignore."""
    method = config.weighting.method
    if method not in METHODS:
        raise ConfigError(f"weighting.method: there is no method {method!r}; {did_you_mean(method, METHODS)}")
    if config.weighting.lambdas and not METHODS[method].takes_lambdas:
        raise ConfigError(
            f"weighting.lambdas: {method} learns its lambdas and would ignore these; remove them or use manual"
        )


def build_weighting(config: ProjectConfig) -> nn.Module:
    """The weighting module of a configuration."""
    check_weighting(config)
    lambdas = torch.tensor(list(config.lambdas().values()))
    regression = torch.tensor([task.kind == "regression" for task in config.tasks.values()])
    return METHODS[config.weighting.method].build(lambdas, regression)
