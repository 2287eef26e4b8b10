"""Named methods: a table from name to the weighting that makes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtl_rank.config import ProjectConfig
from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.training.weighting.aggregation import AGGREGATORS, GradientAggregation, check_packages
from mtl_rank.training.weighting.base import Weighting
from mtl_rank.training.weighting.dwa import DynamicWeightAverage
from mtl_rank.training.weighting.famo import Famo
from mtl_rank.training.weighting.gradnorm import GradNorm
from mtl_rank.training.weighting.loss_scale import LossScale
from mtl_rank.training.weighting.manual import Points, manual
from mtl_rank.training.weighting.rlw import RandomLossWeighting
from mtl_rank.training.weighting.uncertainty import Uncertainty


@dataclass(frozen=True)
class Tasks:
    """What a weighting is built from.

    lambdas: (T,) the manual ones. is_regression: (T,). schedule: points by position of the task.
    """

    lambdas: Tensor
    is_regression: Tensor
    steps_per_epoch: int = 1
    seed: int = 0
    schedule: Mapping[int, Points] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lambdas)


@dataclass(frozen=True)
class Method:
    """takes_lambdas: whether it uses the manual lambdas."""

    summary: str
    build: Callable[[Tasks], Weighting]
    takes_lambdas: bool = False


def _aggregation(name: str, summary: str) -> Method:
    return Method(
        summary, lambda tasks: GradientAggregation(name, tasks.lambdas, tasks.seed), takes_lambdas=True
    )


METHODS: Mapping[str, Method] = {
    "manual": Method(
        "fixed lambdas, or a schedule of them",
        lambda tasks: manual(tasks.lambdas, tasks.schedule, tasks.steps_per_epoch),
        takes_lambdas=True,
    ),
    "loss_scale": Method(
        "every task pulls with the same relative force",
        lambda tasks: LossScale(tasks.lambdas),
        takes_lambdas=True,
    ),
    "uncertainty": Method(
        "learned homoscedastic uncertainty (Kendall 2018)", lambda tasks: Uncertainty(tasks.is_regression)
    ),
    "dwa": Method(
        "more for losses that fall slower (Liu 2019)",
        lambda tasks: DynamicWeightAverage(len(tasks), tasks.steps_per_epoch),
    ),
    "rlw": Method(
        "random in every step (Lin 2021)", lambda tasks: RandomLossWeighting(len(tasks), tasks.seed)
    ),
    "gradnorm": Method("gradients of like norm (Chen 2018)", lambda tasks: GradNorm(len(tasks))),
    "famo": Method("losses that fall at like speed (Liu 2023)", lambda tasks: Famo(len(tasks))),
    **{name: _aggregation(name, aggregator.summary) for name, aggregator in AGGREGATORS.items()},
}


def check_weighting(config: ProjectConfig) -> None:
    """Raises ConfigError for an unknown method, or lambdas that the method would ignore."""
    weighting = config.weighting
    if weighting.method not in METHODS:
        raise ConfigError(
            f"weighting.method: there is no method {weighting.method!r}; "
            f"{did_you_mean(weighting.method, METHODS)}"
        )
    check_packages(weighting.method)
    if weighting.gradients == "parameters" and config.fit.devices > 1:
        raise ConfigError("weighting.gradients: parameters needs fit.devices: 1; use embeddings")
    if weighting.schedule and weighting.method != "manual":
        raise ConfigError(f"weighting.schedule: {weighting.method} would ignore it; remove it or use manual")
    if METHODS[weighting.method].takes_lambdas:
        return
    takers = ", ".join(name for name, method in METHODS.items() if method.takes_lambdas)
    weights = [f"tasks.{name}.weight" for name, task in config.tasks.items() if task.weight != 1]
    for key in [*(["weighting.lambdas"] if weighting.lambdas else []), *weights]:
        raise ConfigError(
            f"{key}: {weighting.method} finds its lambdas itself and would ignore it; "
            f"remove it or use a method that takes lambdas: {takers}"
        )


def build_weighting(config: ProjectConfig, steps_per_epoch: int) -> Weighting:
    """The weighting module of a configuration."""
    check_weighting(config)
    names = list(config.tasks)
    return METHODS[config.weighting.method].build(
        Tasks(
            lambdas=torch.tensor(list(config.lambdas().values())),
            is_regression=torch.tensor([task.kind == "regression" for task in config.tasks.values()]),
            steps_per_epoch=steps_per_epoch,
            seed=config.fit.seed,
            schedule={names.index(name): points for name, points in config.weighting.schedule.items()},
        )
    )
