"""Is one run better than another? The same rows, the same draws of users, so that the difference has an interval."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_rank import metrics
from mtl_rank.config import ProjectConfig
from mtl_rank.errors import ConfigError, DataError
from mtl_rank.evaluation.evaluate import Question, predict_rows
from mtl_rank.evaluation.outcomes import Doubles, Floats, Kind, Outcomes, outputs_of
from mtl_rank.evaluation.windows import Window
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.metrics import RESAMPLED, Difference
from mtl_rank.metrics.bootstrap import FEWEST_USERS
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter
from mtl_rank.runs import Run

DRAWS = 500
BETTER, WORSE, CHANCE = "better", "worse", "could be chance"
_HIGHER_IS_BETTER = {"auc", "gauc"}
_COMPARED = {"binary": ("auc", "gauc", "ne", "calibration"), "regression": ("rmse", "mae", "calibration")}


@dataclass(frozen=True)
class Compared:
    """One metric of one output. values: per run, in their order. differences: of each later run from the first.

    note: why values or differences are undefined, if any is.
    """

    output: str
    metric: str
    rows: int
    values: tuple[float | None, ...]
    differences: tuple[Difference | None, ...]
    note: str | None = None

    def verdict(self, i: int, level: float = 0.05) -> str:
        """Whether run i + 1 is better than the first; empty for calibration, where 1 is best."""
        found = self.differences[i]
        if found is None or self.metric == "calibration":
            return ""
        if found.p_value > level or found.value == 0:
            return CHANCE
        return BETTER if (found.value > 0) == (self.metric in _HIGHER_IS_BETTER) else WORSE


@dataclass(frozen=True)
class Comparison:
    """Runs on the same labelled rows.

    settings: dotted keys of the configuration that differ -> their value in each run, as text.
    notes: what makes the comparison unfair, if anything does.
    """

    window: str
    rows: int
    runs: tuple[str, ...]
    metrics: tuple[Compared, ...]
    settings: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        document = asdict(self)
        for row, compared in zip(document["metrics"], self.metrics, strict=True):
            row["verdicts"] = [compared.verdict(i) for i in range(len(compared.differences))]
        return document


def compare_runs(
    runs: Sequence[Run],
    repositories: Sequence[FeatureRepository],
    project: Path,
    window: Window,
    examples: str | None,
    draws: int,
    folder: Path,
    reporter: Reporter,
) -> Comparison:
    """Measure finished runs on the same rows. folder: for temporary files.

    Raises ConfigError for fewer than two different runs or runs without a task in common, DataError when their
    labels of one task differ.
    """
    if len({run.id for run in runs}) < max(2, len(runs)):
        raise ConfigError("compare: name two or more different runs")
    shared = _shared([run.config() for run in runs])
    if not shared:
        tasks = "; ".join(f"{run.id} has {_labels(run.config())}" for run in runs)
        raise ConfigError(f"compare: the runs have no task in common: {tasks}")
    rows = examples or runs[0].config().examples
    found = []
    for i, (run, repository) in enumerate(zip(runs, repositories, strict=True)):
        own = folder / str(i)
        own.mkdir()
        predictor = Predictor.load(run)
        outcomes, _ = predict_rows(predictor, repository, project, Question(window, rows), own, reporter)
        found.append(outcomes)
    reporter.stage("compare", len(shared))
    compared: list[Compared] = []
    for done, (name, kind) in enumerate(shared.items(), start=1):
        compared += _compare(name, kind, found, draws)
        reporter.advance(done)
    notes = [note for run in runs for note in _unfair(run, window)]
    return Comparison(
        window=window.name,
        rows=found[0].rows,
        runs=tuple(run.id for run in runs),
        metrics=tuple(compared),
        settings=_settings([run.config() for run in runs]),
        notes=tuple(notes),
    )


def _settings(configs: Sequence[ProjectConfig]) -> dict[str, tuple[str, ...]]:
    flat = [dict(_dotted(config.model_dump(mode="json"))) for config in configs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = {key: tuple(one.get(key, "") for one in flat) for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _dotted(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, str(value)


def _labels(config: ProjectConfig) -> str:
    return ", ".join(f"{name} of {task.label!r}" for name, task in config.tasks.items())


def _shared(configs: Sequence[ProjectConfig]) -> dict[str, Kind]:
    """Outputs that mean the same in every run: the same labels along the same chain."""

    def meaning(config: ProjectConfig, name: str) -> list[tuple[object, ...]]:
        chain = config.products().get(name, (config.task_of(name),))
        task = config.tasks[chain[0]]
        above = [] if task.given is None else meaning(config, task.given)
        tasks = [config.tasks[one] for one in chain]
        return [*above, *((one.label, one.kind, one.classes) for one in tasks)]

    kinds = [outputs_of(config) for config in configs]
    return {
        name: kind
        for name, kind in kinds[0].items()
        if all(name in other for other in kinds)
        and all(meaning(config, name) == meaning(configs[0], name) for config in configs)
    }


def _compare(name: str, kind: Kind, outcomes: Sequence[Outcomes], draws: int) -> list[Compared]:
    labels = outcomes[0].label_of(name)
    for other in outcomes[1:]:
        if not np.array_equal(labels, other.label_of(name), equal_nan=True):
            raise DataError(f"compare: the labels of {name} are not the same for every run")
    defined = np.flatnonzero(~np.isnan(labels))
    y, users = labels[defined], outcomes[0].users[defined]
    predictions = [np.asarray(found.predictions[name])[defined] for found in outcomes]
    # Of rows without a user each is a group of its own, of one class: GAUC leaves it out.
    values = [_values(kind, y, p, users) for p in predictions]
    resampled = metrics.resampled(kind, y, predictions, users, draws)
    rows = []
    for metric in _COMPARED[kind]:
        draws_of = resampled[:, :, RESAMPLED[kind].index(metric)]
        numbers = tuple(of_run[metric] for of_run in values)
        gaps = [_difference(numbers[0], own, draws_of[:, 0], draws_of[:, i]) for i, own in _later(numbers)]
        unknown = None in numbers or None in gaps
        note = _reason(kind, metric, y, users, numbers) if unknown else None
        rows.append(Compared(name, metric, len(y), numbers, tuple(gaps), note))
    return rows


def _reason(kind: Kind, metric: str, y: Floats, users: Any, values: Sequence[float | None]) -> str:
    if not len(y):
        return "no row has this label"
    if None in values:
        if kind == "binary" and (metric != "calibration" or not y.any()) and len(np.unique(y)) == 1:
            return f"every label is {int(y[0])}"
        return "no user has both classes" if metric == "gauc" else "no label is above 0"
    if (count := len(np.unique(users))) < FEWEST_USERS:
        return f"no interval of {count} user{'s' * (count > 1)}, at least {FEWEST_USERS} are wanted"
    return "undefined on too many draws of users"


def _later(numbers: Sequence[float | None]) -> list[tuple[int, float | None]]:
    return list(enumerate(numbers))[1:]


def _difference(first: float | None, own: float | None, before: Doubles, after: Doubles) -> Difference | None:
    if first is None or own is None:
        return None
    return metrics.difference(own - first, before, after)


def _values(kind: Kind, y: Floats, p: Floats, users: Any) -> Mapping[str, float | None]:
    if not len(y):
        return dict.fromkeys(_COMPARED[kind])
    if kind == "regression":
        total = float(y.sum())
        return {
            "rmse": metrics.rmse(y, p),
            "mae": metrics.mae(y, p),
            "calibration": float(p.sum()) / total if total > 0 else None,
        }
    return {
        "auc": metrics.auc(y, p),
        "gauc": metrics.gauc(y, p, users).value,
        "ne": metrics.normalised_entropy(y, p),
        "calibration": metrics.calibration(y, p),
    }


def _unfair(run: Run, window: Window) -> list[str]:
    """A run that has seen rows of the window in its training has an advantage that it will not have tomorrow."""
    seen = run.config().split.valid
    if window.name in ("examples", "train") or window.start is None or seen <= window.start:
        return []
    return [f"run {run.id} was trained on rows up to {seen:%Y-%m-%d %H:%M}, which the window includes"]
