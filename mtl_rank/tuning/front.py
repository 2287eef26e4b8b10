"""The trade-off that a study found: its points, those that nothing beats, and the best one for given priorities."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtl_rank.config import ProjectConfig
from mtl_rank.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Point:
    """One training.

    losses: the normalised validation loss per task, 1 = a constant prediction. auc: not of regression tasks.
    on_front: no other point is better for a task without being worse for another. command: trains it.
    """

    trial: int
    lambdas: Mapping[str, float]
    settings: Mapping[str, str]
    losses: Mapping[str, float]
    auc: Mapping[str, float]
    on_front: bool
    command: str

    def against(self, alone: Mapping[str, float]) -> dict[str, float]:
        """Per task the relative change of the loss against training it alone; below 0 = the others help."""
        return {task: loss / alone[task] - 1 for task, loss in self.losses.items()}


@dataclass(frozen=True)
class Tuning:
    """What a study knows so far.

    alone: per task the loss of a model trained on that task alone. failed: trials without a result, and why.
    best: the trial with the least mean of relative changes against training alone, weighted by `prefer`.
    """

    study: str
    points: tuple[Point, ...]
    failed: Mapping[int, str]
    alone: Mapping[str, float]
    prefer: Mapping[str, float]
    best: int

    @property
    def front(self) -> list[Point]:
        """The points that nothing beats, in the order of the first task's loss."""
        return sorted((p for p in self.points if p.on_front), key=lambda p: next(iter(p.losses.values())))

    @property
    def best_point(self) -> Point:
        return next(point for point in self.points if point.trial == self.best)

    def as_dict(self) -> dict[str, Any]:
        points = [{**asdict(point), "against_alone": point.against(self.alone)} for point in self.points]
        return {**asdict(self), "points": points, "command": self.best_point.command}


def loss_metric(config: ProjectConfig, task: str) -> str:
    """The validation metric that is a task's normalised loss."""
    return f"valid/{task}/{'nmse' if config.tasks[task].kind == 'regression' else 'ne'}"


def best_for(points: Sequence[Point], alone: Mapping[str, float], prefer: Mapping[str, float]) -> Point:
    """The point with the least weighted mean of relative changes (Maninis et al. 2019, eq. 4, on losses)."""

    def change(point: Point) -> float:
        return sum(prefer[task] * change for task, change in point.against(alone).items())

    return min(points, key=change)


def parse_preferences(tasks: Sequence[str], pairs: Sequence[str]) -> dict[str, float]:
    """`["ctr=2"]` -> a weight per task, 1 where none is given. Raises ConfigError."""
    weights = dict.fromkeys(tasks, 1.0)
    for pair in pairs:
        task, _, text = (part.strip() for part in pair.partition("="))
        try:
            weight = float(text)
        except ValueError:
            weight = -1.0
        if not 0 <= weight < float("inf"):
            raise ConfigError(
                f"--prefer {pair}: write task=weight with a weight >= 0, such as --prefer ctr=2"
            )
        if task not in weights:
            raise ConfigError(f"--prefer {pair}: there is no task {task!r}; {did_you_mean(task, tasks)}")
        weights[task] = weight
    if not any(weights.values()):
        raise ConfigError("--prefer: every weight is 0")
    return weights
