"""Predictions + labels -> numbers, per task and per chain product."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mtl_rank import metrics
from mtl_rank.evaluation.curves import (
    BINS,
    POINTS,
    Curves,
    activity_table,
    distribution_table,
    regression_curves,
    reliability_table,
    thresholds_table,
)
from mtl_rank.evaluation.outcomes import Codes, Floats, Kind, Outcomes
from mtl_rank.evaluation.slices import Slice, SliceNumbers, slice_numbers
from mtl_rank.metrics import Ordered, OrderedLists, Positions

LIST_LENGTH = 10


@dataclass(frozen=True)
class TaskNumbers:
    """One output measured on the rows where its label is known. None = undefined, for the reason in `note`.

    attainable_auc: the AUC of the true probabilities, where they are known (simulated data).
    calibration: mean prediction / mean label. ne: log loss / entropy of the base rate.
    gauc: by user, over gauc_users; gauc_left_out users have one class only. gauc_day: by user and day.
    Rows whose user is not known are in none of those that are measured within users.
    ndcg, map, recall: at 10, of the rows of a user as one list.
    intervals: metric -> [low, high], 95 %, users drawn with replacement.
    uncalibrated: ne, calibration and ece before the calibration of the run; None where there is none.
    """

    name: str
    kind: Kind
    rows: int
    positives: int
    mean_label: float | None
    mean_prediction: float | None
    calibration: float | None
    auc: float | None = None
    attainable_auc: float | None = None
    gauc: float | None = None
    gauc_users: int | None = None
    gauc_left_out: int | None = None
    gauc_day: float | None = None
    pr_auc: float | None = None
    ne: float | None = None
    log_loss: float | None = None
    brier: float | None = None
    ece: float | None = None
    ndcg: float | None = None
    map: float | None = None
    recall: float | None = None
    rmse: float | None = None
    mae: float | None = None
    spearman: float | None = None
    intervals: dict[str, list[float]] = field(default_factory=dict)
    uncalibrated: dict[str, float | None] | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The numbers that belong to this kind of task; undefined ones as null."""
        foreign = _REGRESSION_ONLY if self.kind == "binary" else _BINARY_ONLY
        return {key: value for key, value in asdict(self).items() if key not in foreign}


_REGRESSION_ONLY = {"rmse", "mae", "spearman"}
_BINARY_ONLY = {
    *("auc", "attainable_auc", "gauc", "gauc_users", "gauc_left_out", "gauc_day", "pr_auc", "ne", "log_loss"),
    *("brier", "ece", "ndcg", "map", "recall", "uncalibrated"),
}


@dataclass(frozen=True)
class Measured:
    """An output: its numbers, the curves behind them, its slices, the worst first."""

    numbers: TaskNumbers
    curves: Curves | None
    slices: tuple[SliceNumbers, ...] = ()


def measure_all(
    outcomes: Outcomes, slices: Mapping[str, Slice] | None = None, draws: int = 0, seed: int = 7
) -> list[Measured]:
    """Tasks where they are defined, then chain products over every row whose chain of labels is known.

    draws: of users, for the intervals; 0 = none.
    """
    user_days = outcomes.user_days()
    return [measure(name, outcomes, user_days, slices or {}, draws, seed) for name in outcomes.kinds]


def measure(
    name: str, outcomes: Outcomes, user_days: Codes, slices: Mapping[str, Slice], draws: int, seed: int
) -> Measured:
    """All numbers of one output."""
    kind = outcomes.kinds[name]
    labels = outcomes.label_of(name)
    rows = _Rows.defined(labels)
    y, p = rows.of(labels), rows.of(outcomes.predictions[name])
    if not len(y):
        nothing = TaskNumbers(name, kind, 0, 0, None, None, None, note="no row has this label")
        return Measured(nothing, None)
    total = float(y.sum(dtype=np.float64))
    positives = int(np.count_nonzero(y > 0))
    one_class = kind == "binary" and positives in (0, len(y))
    basis = TaskNumbers(
        name,
        kind,
        rows=len(y),
        positives=positives,
        mean_label=total / len(y),
        mean_prediction=float(p.mean()),
        calibration=_calibration(y, p),
        intervals=_intervals(kind, y, p, rows.of(outcomes.users), draws, seed),
        note=f"every label is {int(y[0])}: ranking numbers are undefined" if one_class else None,
    )
    cuts = {key: rows.cut(found) for key, found in slices.items()}
    if kind == "regression":
        numbers = replace(
            basis, rmse=metrics.rmse(y, p), mae=metrics.mae(y, p), spearman=metrics.spearman(y, p)
        )
        return Measured(numbers, regression_curves(y, p), slice_numbers(y, p, None, cuts))
    known = None if outcomes.userless is None else rows.of(~outcomes.userless)
    numbers, curves, order = _binary(basis, y, p, rows.of(outcomes.users), rows.of(user_days), known)
    before = outcomes.uncalibrated.get(name)
    truth = outcomes.truth_of(name)
    numbers = replace(
        numbers,
        attainable_auc=_attainable(y, None if truth is None else rows.of(truth)),
        uncalibrated=None if before is None else calibration_numbers(y, rows.of(before)),
    )
    return Measured(numbers, curves, slice_numbers(y, p, order, cuts))


def baseline_numbers(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """Of each simpler model and output: auc, ne and calibration, or rmse and calibration.

    They know nothing of tasks with more than two classes.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in outcomes.baselines}
    for name, kind in outcomes.kinds.items():
        labels = outcomes.label_of(name)
        rows = _Rows.defined(labels)
        y = rows.of(labels)
        for model, outputs in outcomes.baselines.items():
            if name not in outputs:
                continue
            p = rows.of(outputs[name])
            if kind == "regression":
                found[model][name] = {"rmse": metrics.rmse(y, p), "calibration": _calibration(y, p)}
            else:
                found[model][name] = {
                    "auc": metrics.auc(y, p),
                    "ne": metrics.normalised_entropy(y, p),
                    "calibration": metrics.calibration(y, p),
                }
    return found


def calibration_numbers(labels: Floats, probabilities: Floats) -> dict[str, float | None]:
    """What calibration changes. labels, probabilities: (N,) without NaN."""
    return {
        "ne": metrics.normalised_entropy(labels, probabilities),
        "calibration": metrics.calibration(labels, probabilities),
        "ece": metrics.expected_calibration_error(labels, probabilities),
    }


def _binary(
    basis: TaskNumbers, y: Floats, p: Floats, users: Codes, user_days: Codes, known: Any
) -> tuple[TaskNumbers, Curves, Positions]:
    """Numbers and curves that need an order, and the order of the rows by prediction.

    What is sorted is given up before it is sorted again: at ten million rows each order takes a few hundred MB.
    known: where the user is; None = everywhere.
    """
    positive = y > 0
    ordered = Ordered.of(positive, p)
    bins = ordered.reliability(BINS)
    numbers = replace(
        basis,
        auc=ordered.auc(),
        pr_auc=ordered.pr_auc(),
        ne=metrics.normalised_entropy(positive, p),
        log_loss=metrics.log_loss(positive, p),
        brier=metrics.brier(positive, p),
        ece=bins.error,
    )
    thresholds, order = ordered.thresholds(POINTS), ordered.order
    del ordered
    lists = _lists(positive, p, users, order, known)
    gauc = lists.gauc()
    numbers = replace(
        numbers,
        gauc=gauc.value,
        gauc_users=gauc.groups_used,
        gauc_left_out=gauc.groups_left_out,
        ndcg=lists.ndcg(LIST_LENGTH).value,
        map=lists.map(LIST_LENGTH).value,
        recall=lists.recall(LIST_LENGTH).value,
    )
    curves = Curves(
        reliability=reliability_table(bins),
        thresholds=thresholds_table(thresholds),
        distribution=distribution_table(positive, p),
        activity=activity_table(lists),
    )
    del lists
    by_day = _lists(positive, p, user_days, order, known).gauc()
    return replace(numbers, gauc_day=by_day.value), curves, order


def _lists(positive: Any, p: Floats, groups: Codes, order: Positions, known: Any) -> OrderedLists:
    if known is None:
        return OrderedLists.of(positive, p, groups, order=order)
    return OrderedLists.of(positive[known], p[known], groups[known])


def _calibration(y: Floats, p: Floats) -> float | None:
    """Of probabilities or values: the sum of predictions over that of labels, None unless that is above 0."""
    total = float(y.sum(dtype=np.float64))
    return float(p.sum()) / total if total > 0 else None


def _attainable(y: Floats, truth: Floats | None) -> float | None:
    return None if truth is None or np.isnan(truth).any() else metrics.auc(y, truth)


def _intervals(
    kind: Kind, y: Floats, p: Floats, users: Codes, draws: int, seed: int
) -> dict[str, list[float]]:
    if not draws:
        return {}
    resampled = metrics.resampled(kind, y, [p], users, draws, seed)[:, 0]
    ends = {name: metrics.interval(resampled[:, i]) for i, name in enumerate(metrics.RESAMPLED[kind])}
    return {name: list(found) for name, found in ends.items() if found is not None}


@dataclass(frozen=True)
class _Rows:
    """The rows on which a label is known; None = all of them, and nothing is copied."""

    index: Any

    @staticmethod
    def defined(labels: Floats) -> "_Rows":
        known = ~np.isnan(labels)
        return _Rows(None if known.all() else np.flatnonzero(known))

    def of(self, values: Any) -> Any:
        return values if self.index is None else values[self.index]

    def cut(self, cut: Slice) -> Slice:
        return replace(cut, codes=self.of(cut.codes))
