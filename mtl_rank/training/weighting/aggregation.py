"""Lambdas from the conflicts between the tasks' gradients, by TorchJD."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from mtl_rank.errors import ConfigError
from mtl_rank.training.weighting.base import Steps, Weighted, Weighting, weighted_sum


@dataclass(frozen=True)
class Aggregator:
    """One way to combine gradients. needs: packages of the `convex` extra, absent = refused."""

    summary: str
    needs: tuple[str, ...] = ()


AGGREGATORS: Mapping[str, Aggregator] = {
    "pcgrad": Aggregator("projects each gradient off those it conflicts with (Yu 2020)"),
    "mgda": Aggregator("the shortest vector between the gradients (Sener & Koltun 2018)"),
    "upgrad": Aggregator("projects each gradient to where no task is harmed (Quinton & Rey 2024)"),
    "imtl_g": Aggregator("equal projections onto each gradient (Liu 2021)"),
    "aligned_mtl": Aggregator("orthogonal gradients of equal norm (Senushkin 2023)"),
    "cagrad": Aggregator("near the mean, best for the worst task (Liu 2021)", needs=("cvxpy", "clarabel")),
    "nashmtl": Aggregator("a bargaining solution (Navon 2022)", needs=("cvxpy", "ecos")),
}


class GradientAggregation(Weighting):
    """total = sum_t lambda_t L_t, the lambdas from the Gramian of the gradients of c_t L_t.

    The shared parameters then move along sum_t lambda_t g_t, the direction of the method. A task without rows in
    the batch takes no part. A lambda may be 0, or negative where the method allows that.

    NOTE[DIFF] the heads move along lambda_t g_t too, not along g_t; with adaptive step sizes that is nearly the same.
    NOTE[DIFF] lambdas are scaled so that tasks of equal norms without conflict have 1 each, as under every other
    method: learning rates and L2 keep their meaning.

    multipliers: (T,) c_t. seed: of pcgrad's order, which depends on it and the step alone.
    """

    needs_gramian = True
    multipliers: Tensor

    def __init__(self, name: str, multipliers: Tensor, seed: int) -> None:
        # TorchJD takes a second to import: not for the other methods.
        from mtl_rank.training.weighting.conflicts import WEIGH

        super().__init__()
        self._weigh = WEIGH[name]()
        self._seed = seed
        self.steps = Steps()
        self.register_buffer("multipliers", multipliers)

    def forward(self, losses: Tensor, gramian: Tensor | None = None) -> Weighted:
        assert gramian is not None
        scale = self.multipliers.double()
        scaled = (gramian.double() * torch.outer(scale, scale)).cpu()
        present = scaled.diagonal() > 0
        lambdas = torch.zeros(len(losses), dtype=torch.float64)
        step = self.steps()
        # Of a training that diverged, validation will say so.
        if present.any() and scaled.isfinite().all():
            inner = scaled[present][:, present]
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(int(np.random.SeedSequence((self._seed, step)).generate_state(1)[0]))
                lambdas[present] = self._weigh(inner / inner.diagonal().mean()).double()
        return weighted_sum(self.multipliers * lambdas.to(self.multipliers), losses)


def check_packages(method: str) -> None:
    """Raises ConfigError when a method needs packages that are not installed."""
    needs = AGGREGATORS[method].needs if method in AGGREGATORS else ()
    missing = [name for name in needs if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"weighting.method: {method} needs {' and '.join(missing)}; install the extra: "
            "pip install 'mtl-rank[convex]'"
        )
