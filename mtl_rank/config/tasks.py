"""The tasks of mtlrank.yaml, what an error of each costs, and how their losses become one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mtl_rank.config.base import Section
from mtl_rank.errors import did_you_mean

Kind = Literal["binary", "regression", "multiclass", "ordinal"]
Label = int | float | str

WITH_CLASSES = ("multiclass", "ordinal")
"""Kinds of tasks whose label is one of more than two classes."""

# The options of each loss; the kind of task it is for. The first one of a kind is its default.
LOSS_OPTIONS: Mapping[str, tuple[str, frozenset[str]]] = {
    "bce": ("binary", frozenset({"smoothing"})),
    "weighted_bce": ("binary", frozenset({"w1", "w0", "balanced", "smoothing"})),
    "focal": ("binary", frozenset({"alpha", "gamma", "smoothing"})),
    "mse": ("regression", frozenset()),
    "huber": ("regression", frozenset({"delta"})),
    "lognormal": ("regression", frozenset()),
    "cross_entropy": ("multiclass", frozenset({"smoothing"})),
    "cumulative": ("ordinal", frozenset({"smoothing"})),
}

Point = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


class Loss(Section):
    """What an error of a task costs; `loss: focal` is short for `loss: {name: focal}`. Formulas: training/losses.

    w1, w0: weights of positive and negative rows. balanced: both from the training rates, half of the weight each.
    alpha, gamma: of focal; alpha weighs positive rows, 1 - alpha negative ones.
    delta: where huber turns from squares to lines, in standard deviations of the (transformed) label.
    smoothing: the share by which a label is moved towards the base rate of its task, or the rates of its classes.
    """

    name: Literal["bce", "weighted_bce", "focal", "mse", "huber", "lognormal", "cross_entropy", "cumulative"]
    w1: float = Field(1.0, gt=0)
    w0: float = Field(1.0, gt=0)
    balanced: bool = False
    alpha: float = Field(0.25, gt=0, lt=1)
    gamma: float = Field(2.0, ge=0)
    delta: float = Field(1.0, gt=0)
    smoothing: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, raw: Any) -> Any:
        return {"name": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _options_belong(self) -> Self:
        _, known = LOSS_OPTIONS[self.name]
        for key in sorted(self.model_fields_set - known - {"name"}):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{self.name} has no option {key!r}; {did_you_mean(key, known)}")
        if self.name == "weighted_bce" and self.balanced == bool({"w1", "w0"} & self.model_fields_set):
            raise ValueError("weighted_bce takes either w1 and w0 or balanced: true")
        return self

    @model_serializer(mode="wrap")
    def _only_its_options(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        _, known = LOSS_OPTIONS[self.name]
        left_out = {"w1", "w0"} if self.balanced else set()
        return {
            key: value for key, value in serialize(self).items() if key == "name" or key in known - left_out
        }


def default_loss(kind: Kind) -> Loss:
    """The first loss of a kind."""
    return Loss.model_validate(next(name for name, (of, _) in LOSS_OPTIONS.items() if of == kind))


class Task(Section):
    """One thing the model predicts.

    classes: the values that the label of a multiclass or ordinal task may have; those of an ordinal one are numbers
        that rise.
    given: the task whose positive rows this one is defined on (cvr given ctr); None = every row.
    loss: None = the first one of its kind in LOSS_OPTIONS.
    mean_over: what its loss is divided by: the rows of a batch where it is defined, or all of them, so that a rare task
        pulls by its share of the rows.
    weight: the task's manual lambda; `weighting.lambdas` overrides it.
    inverse_propensity: rows count 1 / max(p, this), p the predicted probability of being such a row (that of the
        parent, along the chain): the loss is then that over every row. None = rows count alike.
    """

    label: str
    kind: Kind = "binary"
    classes: tuple[Label, ...] = ()
    given: str | None = None
    loss: Loss | None = None
    transform: Literal["log1p", "none"] = "none"
    mean_over: Literal["defined", "batch"] = "defined"
    weight: float = Field(1.0, ge=0)
    inverse_propensity: float | None = Field(None, gt=0, le=1)

    @property
    def has_classes(self) -> bool:
        """Whether the label is one of more than two classes."""
        return self.kind in WITH_CLASSES

    @property
    def _described(self) -> str:
        return f"{'an' if self.kind == 'ordinal' else 'a'} {self.kind} task"

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.loss is not None and LOSS_OPTIONS[self.loss.name][0] != self.kind:
            *others, last = (name for name, (kind, _) in LOSS_OPTIONS.items() if kind == self.kind)
            raise ValueError(
                f"{self._described} takes loss {', '.join(others)}{' or ' if others else ''}{last}, "
                f"not {self.loss.name} (or set kind: {LOSS_OPTIONS[self.loss.name][0]})"
            )
        if self.kind != "regression" and self.transform != "none":
            raise ValueError(f"{self._described} takes no transform (or set kind: regression)")
        if self.loss is not None and self.loss.name == "lognormal" and self.transform != "log1p":
            raise ValueError("loss lognormal is about the logarithm of the label: set transform: log1p")
        if self.inverse_propensity is not None and self.given is None:
            raise ValueError(
                "inverse_propensity is for a task with `given`: this one is defined on every row"
            )
        if self.inverse_propensity is not None and self.loss is not None and self.loss.smoothing:
            raise ValueError(
                "with inverse_propensity the loss is that of every row, whose rate is another than the one that "
                "smoothing moves labels towards: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _classes_are_classes(self) -> Self:
        if not self.has_classes:
            if self.classes:
                raise ValueError(
                    f"{self._described} has no classes (or set kind: {' or '.join(WITH_CLASSES)})"
                )
            return self
        if len(self.classes) < 3:
            raise ValueError(
                f"{self._described} needs its classes, at least 3, such as classes: [1, 2, 3]; two are a binary task"
            )
        if len(set(self.classes)) < len(self.classes) or len({isinstance(c, str) for c in self.classes}) > 1:
            raise ValueError("classes are different numbers, or different texts")
        numbers = [value for value in self.classes if not isinstance(value, str)]
        if self.kind == "ordinal" and (not numbers or sorted(numbers) != numbers):
            raise ValueError("the classes of an ordinal task are numbers that rise (or set kind: multiclass)")
        return self


class Weighting(Section):
    """How the tasks' losses become one. `method` is looked up in training/weighting.

    schedule: per task points [epoch, factor], joined by straight lines; the factor multiplies its manual lambda.
    gradients: at what methods that compare gradients look: the embeddings of a batch, or every shared parameter.
    log_gradients: norms and cosines of the tasks' gradients into history.csv, whatever the method.
    """

    method: str = "manual"
    lambdas: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    schedule: dict[str, Annotated[tuple[Point, ...], Field(min_length=1)]] = Field(default_factory=dict)
    gradients: Literal["embeddings", "parameters"] = "embeddings"
    log_gradients: bool = False

    @model_validator(mode="after")
    def _time_goes_forward(self) -> Self:
        for task, points in self.schedule.items():
            epochs = [epoch for epoch, _ in points]
            if epochs != sorted(set(epochs)):
                raise ValueError(f"schedule.{task}: the epochs of the points must rise, got {epochs}")
        return self
