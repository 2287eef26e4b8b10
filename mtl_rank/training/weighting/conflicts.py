"""TorchJD's weights of conflicting gradients, by the name of the method."""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torchjd.aggregation import (
    AlignedMTLWeighting,
    CAGradWeighting,
    IMTLGWeighting,
    MGDAWeighting,
    NashMTL,
    PCGradWeighting,
    UPGradWeighting,
)
from torchjd.linalg import QuadprogProjector

# The Gramian of the gradients (T, T), of mean square 1 -> their weights (T,).
Weigh = Callable[[Tensor], Tensor]

# How far from the mean gradient, in units of its length.
_CAGRAD = 0.5


def _per_task(weigh: Weigh, total: float = 1.0) -> Weigh:
    """Weights whose sum is `total` without conflict, so scaled that it is T: 1 each, as under the other methods."""
    return lambda gramian: len(gramian) / total * weigh(gramian)


def _nash_mtl() -> Weigh:
    def weigh(gramian: Tensor) -> Tensor:
        if len(gramian) == 1:
            # One task has nobody to bargain with; the solver takes no problem of one variable.
            return torch.ones_like(gramian[0])
        # It wants gradients: any with these inner products will do. Anew each time, so that it has no memory
        # that a checkpoint would lack.
        values, vectors = torch.linalg.eigh(gramian)
        gradients = vectors * values.clamp(min=0).sqrt()
        # Of gradients that are exactly opposed it divides by zero on its way, and comes to a result all the same.
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            # That the next solution will not be quicker than the first: there is none.
            warnings.filterwarnings("ignore", message=".*not DPP.*")
            weights: Tensor = NashMTL(n_tasks=len(gramian), max_norm=0.0).weighting(gradients)
        return weights * (len(gramian) / weights.sum())

    return weigh


WEIGH: Mapping[str, Callable[[], Weigh]] = {
    "pcgrad": PCGradWeighting,
    "mgda": lambda: _per_task(MGDAWeighting()),
    # Gradients of norms 1 : 1000 still count in the projections.
    "upgrad": lambda: _per_task(UPGradWeighting(projector=QuadprogProjector(norm_eps=1e-12, reg_eps=1e-12))),
    "imtl_g": lambda: _per_task(IMTLGWeighting()),
    "aligned_mtl": lambda: _per_task(AlignedMTLWeighting()),
    "cagrad": lambda: _per_task(CAGradWeighting(c=_CAGRAD), total=1 + _CAGRAD),
    "nashmtl": _nash_mtl,
}
