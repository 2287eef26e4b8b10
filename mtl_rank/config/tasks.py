"""The tasks of mtlrank.yaml, what an error of each costs, and how their losses become one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mtl_rank.config.base import Section
from mtl_rank.errors import did_you_mean

# The options of each loss; the kind of task it is for.
LOSS_OPTIONS: Mapping[str, tuple[str, frozenset[str]]] = {
    "bce": ("binary", frozenset({"smoothing"})),
    "weighted_bce": ("binary", frozenset({"w1", "w0", "balanced", "smoothing"})),
    "focal": ("binary", frozenset({"alpha", "gamma", "smoothing"})),
    "mse": ("regression", frozenset()),
    "huber": ("regression", frozenset({"delta"})),
    "lognormal": ("regression", frozenset()),
}

Point = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


class Loss(Section):
    """What an error of a task costs; `loss: focal` is short for `loss: {name: focal}`. Formulas: training/losses.

    w1, w0: weights of positive and negative rows. balanced: both from the training rates, half of the weight each.
    alpha, gamma: of focal; alpha weighs positive rows, 1 - alpha negative ones.
    delta: where huber turns from squares to lines, in standard deviations of the (transformed) label.
    smoothing: the share by which a label is moved towards the base rate of its task.
    """

    name: Literal["bce", "weighted_bce", "focal", "mse", "huber", "lognormal"]
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


class Task(Section):
    """One thing the model predicts.

    given: the task whose positive rows this one is defined on (cvr given ctr); None = every row.
    loss: None = bce for a binary task, mse for a regression.
    weight: the task's manual lambda; `weighting.lambdas` overrides it.
    inverse_propensity: rows count 1 / max(p, this), p the predicted probability of being such a row (that of the
        parent, along the chain): the loss is then that over every row. None = rows count alike.
    """

    label: str
    kind: Literal["binary", "regression"] = "binary"
    given: str | None = None
    loss: Loss | None = None
    transform: Literal["log1p", "none"] = "none"
    weight: float = Field(1.0, ge=0)
    inverse_propensity: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.loss is not None and LOSS_OPTIONS[self.loss.name][0] != self.kind:
            known = [name for name, (kind, _) in LOSS_OPTIONS.items() if kind == self.kind]
            other = "regression" if self.kind == "binary" else "binary"
            raise ValueError(
                f"a {self.kind} task takes loss {', '.join(known[:-1])} or {known[-1]}, "
                f"not {self.loss.name} (or set kind: {other})"
            )
        if self.kind == "binary" and self.transform != "none":
            raise ValueError("a binary task takes no transform (or set kind: regression)")
        if self.loss is not None and self.loss.name == "lognormal" and self.transform != "log1p":
            raise ValueError("loss lognormal is about the logarithm of the label: set transform: log1p")
        if self.inverse_propensity is not None and self.given is None:
            raise ValueError(
                "inverse_propensity is for a task with `given`: this one is defined on every row"
            )
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
