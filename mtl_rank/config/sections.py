"""The sections of mtlrank.yaml, each a frozen model that rejects unknown keys."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from mtl_rank.config.base import Name, Section, UtcTime
from mtl_rank.config.measuring import Calibration, CalibrationMethod, Evaluation
from mtl_rank.config.model import Model
from mtl_rank.config.tasks import Task, Weighting
from mtl_rank.errors import ConfigError, did_you_mean


class InputOptions(Section):
    """How one model input is read; the same options as the `mtlrank.*` tags of a Feast field.

    role: categorical (an id), dense (a number), sequence (ids in time order), bag (ids without order).
    bins: quantile bins embedded beside a dense value; 0 = none.
    shares: another input whose vocabulary and embedding this one uses.
    max_len: how many of the most recent ids of a sequence are kept.
    times: of a sequence, the feature with the time of each of its ids, a list of the same length.
    """

    role: Literal["categorical", "dense", "sequence", "bag", "ignore"] | None = None
    dim: int | None = Field(None, gt=0)
    vocab: Literal["learned", "hashed"] = "learned"
    buckets: int = Field(100_000, gt=0)
    min_count: int = Field(5, ge=1)
    max_size: int | None = Field(None, gt=0)
    transform: Literal["standard", "log1p", "quantile", "none"] = "standard"
    bins: int = Field(32, ge=0, le=1024)
    shares: str | None = None
    max_len: int = Field(50, gt=0)
    times: str | None = None


class ContextOptions(InputOptions):
    """A column of the entity rows that is known at request time.

    at_scoring: the value every candidate gets when the candidate table lacks the column.
    """

    at_scoring: int | float | str | bool | None = None


class Split(Section):
    """Cuts by event time: train < valid <= validation rows < test <= test rows (< end)."""

    valid: UtcTime
    test: UtcTime
    end: UtcTime | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.valid >= self.test or (self.end is not None and self.test >= self.end):
            raise ValueError("needs valid < test < end in time")
        return self


class Truth(Section):
    """A parquet of true probabilities (simulated data only), read by evaluation alone."""

    path: str
    key: str


class Negatives(Section):
    """Training on a part of one task's negative rows, for data with few positives.

    task: a binary task that is defined on every row. keep: the share of its rows with label 0 that each epoch
    trains on, drawn anew for each. Predictions need no correction: see `training.losses.TaskLosses`.
    """

    task: str
    keep: float = Field(gt=0, le=1)


class Fit(Section):
    """How the network is trained.

    batch_size: rows per step; auto = by the number of training rows.
    embedding_l2: penalty l2 / 2 * |v|^2 on each embedding row of a batch, in units of one example's loss (in a
        batch of 512, if it is smaller): the same strength at any batch size.
    embedding_optimizer: adagrad (row-wise, one number of state per row) or adam (lazy, two per value).
    clip_norm: the gradients of a step, tables included, are scaled down to this norm; None = never.
    warmup_steps, schedule: the learning rates rise over the first steps, then stay (constant), fall to a tenth
        within each epoch (restarts), or fall to zero over all epochs (linear, cosine).
    devices: processes that share each batch, by Lightning's DDP.
    checkpoint_minutes: how much work a killed run may lose; epochs' ends are always kept.
    monitor: `valid/ne` (mean normalised loss of the tasks, lower is better) or `valid/<task>/<metric>`.
    monitor_weights: of the tasks in that mean, 1 for those that are left out.
    tensorboard: write what history.csv gets for TensorBoard too (extra `tensorboard`).
    patience: epochs without improvement of `monitor` before training stops; the best weights are kept.
    """

    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    epochs: int = Field(15, gt=0)
    lr: float = Field(2e-3, gt=0)
    embedding_lr: float = Field(3e-2, gt=0)
    embedding_l2: float = Field(5.0, ge=0)
    embedding_optimizer: Literal["adagrad", "adam"] = "adagrad"
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "restarts", "linear", "cosine"] = "restarts"
    seed: int = Field(7, ge=0, lt=2**32)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    monitor: str = "valid/ne"
    monitor_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    patience: int = Field(2, ge=1)
    negatives: Negatives | None = None
    tensorboard: bool = False
    checkpoint_minutes: float = Field(5.0, gt=0)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = Field(1, gt=0)


# Beside the outputs; a ranked table has the last two.
_SCORES_COLUMNS = ("event_timestamp", "run_id", "job_id", "scored_at", "rank_by", "rank")


class ProjectConfig(Section):
    """Everything a run needs to know; saved complete as `config.yaml` in the run directory.

    weights: a column of the examples, how much each row counts in training; None = all alike.
    """

    feature_repo: str = "feature_repo"
    feature_service: str
    examples: str
    split: Split
    context: dict[str, ContextOptions] = Field(default_factory=dict)
    weights: str | None = None
    tasks: dict[Name, Task] = Field(min_length=1)
    user_key: str | None = None
    truth: Truth | None = None
    model: Model = Model()
    weighting: Weighting = Weighting()
    fit: Fit = Fit()
    calibration: Calibration = Calibration()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _tasks_are_consistent(self) -> Self:
        for name, task in self.tasks.items():
            seen = [name]
            while task.given is not None:
                if task.given not in self.tasks:
                    raise ValueError(
                        f"tasks.{seen[-1]}.given: there is no task {task.given!r}; "
                        f"{did_you_mean(task.given, self.tasks)}"
                    )
                if self.tasks[task.given].kind != "binary":
                    raise ValueError(f"tasks.{seen[-1]}.given: {task.given!r} is not a binary task")
                if task.given in seen:
                    raise ValueError(f"tasks.{name}.given: a cycle, {' given '.join([*seen, task.given])}")
                seen.append(task.given)
                task = self.tasks[task.given]
        for key, names in (("lambdas", self.weighting.lambdas), ("schedule", self.weighting.schedule)):
            for name in names:
                if name not in self.tasks:
                    raise ValueError(
                        f"weighting.{key}: there is no task {name!r}; {did_you_mean(name, self.tasks)}"
                    )
        self._check_output_names()
        self._check_negatives()
        self._check_calibration()
        lambdas = self.lambdas()
        if not any(lambdas.values()):
            raise ValueError("weighting.lambdas: every lambda is 0, so nothing would be trained")
        if not any(
            factor and any(height for _, height in self.weighting.schedule.get(name, ((0, 1),)))
            for name, factor in lambdas.items()
        ):
            raise ValueError(
                "weighting.schedule: every factor of a task with a lambda is 0, so nothing would be trained"
            )
        return self

    def _check_negatives(self) -> None:
        if self.fit.negatives is None:
            return
        name = self.fit.negatives.task
        if name not in self.tasks:
            raise ValueError(
                f"fit.negatives.task: there is no task {name!r}; {did_you_mean(name, self.tasks)}"
            )
        if self.tasks[name].kind != "binary" or self.tasks[name].given is not None:
            raise ValueError(f"fit.negatives.task: needs a binary task without `given`, not {name}")
        loss = self.tasks[name].loss
        if loss is not None and (loss.name == "focal" or loss.balanced or loss.smoothing):
            raise ValueError(
                f"fit.negatives.task: predictions of {name} can be put right for bce and for weighted_bce with "
                "w1 and w0, not for focal, balanced or smoothing"
            )

    def _check_calibration(self) -> None:
        for name, method in self.calibration.tasks.items():
            if name not in self.tasks:
                raise ValueError(
                    f"calibration.tasks: there is no task {name!r}; {did_you_mean(name, self.tasks)}"
                )
            if self.tasks[name].kind != "binary" and method != "none":
                raise ValueError(
                    f"calibration.tasks.{name}: only binary tasks are calibrated, this one is {self.tasks[name].kind}"
                )

    def calibration_of(self, task: str) -> CalibrationMethod:
        """The method for a task; none for one that is not binary."""
        if self.tasks[task].kind != "binary":
            return "none"
        return self.calibration.tasks.get(task, self.calibration.method)

    def _check_output_names(self) -> None:
        """Outputs become columns of one table, where letter case does not tell names apart."""
        seen = dict.fromkeys(_SCORES_COLUMNS, "a column of the scores table")
        chains = [(product, " * ".join(chain)) for product, chain in self.products().items()]
        classes = [
            (column, f"class {value} of {name}")
            for name, columns in self.class_columns().items()
            for column, value in zip(columns, self.tasks[name].classes, strict=True)
        ]
        for name, what in [*((name, f"task {name}") for name in self.tasks), *classes, *chains]:
            if name.lower() in seen:
                raise ValueError(
                    f"tasks: {seen[name.lower()]} and {what} would both be called {name}; rename a task"
                )
            seen[name.lower()] = what

    def with_tasks(self, names: Sequence[str]) -> "ProjectConfig":
        """The same project with only these tasks, in this order.

        Raises ConfigError for an unknown or repeated task, or one whose parent is left out.
        """
        for name in names:
            if name not in self.tasks:
                raise ConfigError(f"--tasks: there is no task {name!r}; {did_you_mean(name, self.tasks)}")
            given = self.tasks[name].given
            if given is not None and given not in names:
                raise ConfigError(f"--tasks: {name} is given {given}; add it: --tasks {given},{name}")
        if len(set(names)) != len(names) or not names:
            raise ConfigError("--tasks: name each task once, at least one")
        raw = self.model_dump()
        raw["tasks"] = {name: raw["tasks"][name] for name in names}
        for key in ("lambdas", "schedule"):
            raw["weighting"][key] = {k: v for k, v in raw["weighting"][key].items() if k in names}
        raw["fit"]["monitor_weights"] = {k: v for k, v in self.fit.monitor_weights.items() if k in names}
        raw["calibration"]["tasks"] = {k: v for k, v in self.calibration.tasks.items() if k in names}
        try:
            return ProjectConfig.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(f"--tasks {','.join(names)}: {error.errors()[0]['ctx']['error']}") from None

    def lambdas(self) -> dict[str, float]:
        """The manual lambda of each task, in task order."""
        return {name: self.weighting.lambdas.get(name, task.weight) for name, task in self.tasks.items()}

    def products(self) -> dict[str, tuple[str, ...]]:
        """For each task with a parent the name of its chain product and the tasks that it multiplies.

        A task with classes has none: that its parent's label was 0 is none of its classes.
        """
        return {
            _product_name(chain): chain for chain in self._chains() if not self.tasks[chain[-1]].has_classes
        }

    def class_columns(self) -> dict[str, tuple[str, ...]]:
        """For each task with classes the names of the outputs that are their probabilities."""
        return {
            name: tuple(f"{name}_{re.sub(r'[^0-9A-Za-z_]', '_', str(value))}" for value in task.classes)
            for name, task in self.tasks.items()
            if task.has_classes
        }

    def task_of(self, output: str) -> str:
        """The task that an output is of: itself, that of a class, the last one of a chain."""
        classes = {column: name for name, columns in self.class_columns().items() for column in columns}
        return self.products().get(output, (classes.get(output, output),))[-1]

    def outputs(self) -> dict[str, Literal["binary", "regression"]]:
        """Every output that is predicted, measured and scored, in order, and whether it is a probability or a value.

        A binary or regression task is one; a multiclass one is the probability of each class, an ordinal one its
        expected class and those; behind them are the chain products.
        """
        kinds: dict[str, Literal["binary", "regression"]] = {}
        classes = self.class_columns()
        for name, task in self.tasks.items():
            if task.kind != "multiclass":
                kinds[name] = "binary" if task.kind == "binary" else "regression"
            kinds |= dict.fromkeys(classes.get(name, ()), "binary")
        return kinds | {
            product: "binary" if self.tasks[chain[-1]].kind == "binary" else "regression"
            for product, chain in self.products().items()
        }

    def _chains(self) -> list[tuple[str, ...]]:
        """Each task with a parent, its ancestors before it."""
        chains = []
        for name in self.tasks:
            chain = [name]
            while (given := self.tasks[chain[0]].given) is not None:
                chain.insert(0, given)
            if len(chain) > 1:
                chains.append(tuple(chain))
        return chains

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _product_name(chain: Sequence[str]) -> str:
    """`parent_child`, but `ctcvr` for cvr given ctr, as the literature has it."""
    return "_".join(chain).replace("ctr_cvr", "ctcvr")
