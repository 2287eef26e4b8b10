"""calibration: and evaluation:, what happens to a run once its network is trained."""

from typing import Literal

from pydantic import Field, field_validator

from mtl_rank.config.base import Section

FEWEST_DRAWS = 10
"""From fewer draws of users there is no telling where the middle 95 % end."""

CalibrationMethod = Literal["none", "auto", "platt", "isotonic", "temperature", "beta"]


class Calibration(Section):
    """Post-hoc calibration of binary tasks, fitted on the validation rows and applied to every prediction.

    method: of each task without an entry in `tasks`. auto: the best one in cross-validation, none where none is
        better beyond doubt.
    """

    method: CalibrationMethod = "none"
    tasks: dict[str, CalibrationMethod] = Field(default_factory=dict)


BaselineName = Literal["constant", "item_rate", "logistic", "trees"]


class Evaluation(Section):
    """What is measured beyond the numbers of each task.

    by: columns of the examples or features whose values are measured one by one.
    draws: of users, for intervals and p-values; 0 = no intervals, or at least `FEWEST_DRAWS`.
    baselines: simpler models that are trained and measured beside the run.
    """

    by: tuple[str, ...] = ()
    draws: int = Field(200, ge=0, le=10_000)
    baselines: tuple[BaselineName, ...] = ("constant", "item_rate", "logistic")

    @field_validator("draws")
    @classmethod
    def _tell_an_interval(cls, draws: int) -> int:
        if 0 < draws < FEWEST_DRAWS:
            raise ValueError(f"{draws} tell no interval; 0 for none, or at least {FEWEST_DRAWS}")
        return draws
