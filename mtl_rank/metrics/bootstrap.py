"""How sure is a number? Users are drawn with replacement, and everything is measured again on what was drawn.

Rows of one user are alike, so rows are never drawn one by one: intervals would come out too narrow (Cameron et
al. 2008; for AUC, Obuchowski 1997). Several models are measured on the same draws, so that their difference has
an interval of its own, far narrower than theirs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_rank.metrics._checks import Array, binary, column
from mtl_rank.metrics.lists import OrderedLists
from mtl_rank.metrics.ordered import Ordered
from mtl_rank.metrics.probability import row_losses

Doubles = NDArray[np.float64]
Kind = Literal["binary", "regression"]

RESAMPLED = {"binary": ("auc", "gauc", "ne", "calibration"), "regression": ("rmse", "mae", "calibration")}
"""The metrics that are measured on each draw, by kind of task."""

FEWEST_USERS = 10
_DEFINED = 0.9


@dataclass(frozen=True)
class Difference:
    """Of a metric between two models: b - a, its interval, and the share of draws that would speak against it.

    p_value: two-sided; twice the smaller share of draws with a difference on one side of 0, at least
    2 / (draws + 1).
    """

    value: float
    low: float
    high: float
    p_value: float


def resampled(
    kind: Kind,
    labels: ArrayLike,
    predictions: Sequence[ArrayLike],
    users: ArrayLike,
    draws: int,
    seed: int = 7,
) -> Doubles:
    """The metrics `RESAMPLED[kind]` of each model on each draw of users: (draws, models, metrics), NaN = undefined.

    labels: (N,). predictions: one (N,) per model. users: (N,) any sortable keys; GAUC compares rows within them.
    With fewer than 10 users everything is NaN: so few tell nothing of others.
    """
    codes = np.unique(np.asarray(users), return_inverse=True)[1].astype(np.int32)
    count = int(codes.max()) + 1 if len(codes) else 0
    names = RESAMPLED[kind]
    found = np.full((draws, len(predictions), len(names)), np.nan)
    if count < FEWEST_USERS:
        return found
    measure = _Binary if kind == "binary" else _Regression
    models = [measure(labels, model, codes, count) for model in predictions]
    for i, drawn in enumerate(user_draws(count, draws, seed)):
        for j, model in enumerate(models):
            found[i, j] = model(drawn)
    return found


def interval(values: Doubles, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of resampled values (draws,); None when more than a tenth of them is undefined."""
    defined = values[~np.isnan(values)]
    if not len(values) or len(defined) < _DEFINED * len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference(value: float, a: Doubles, b: Doubles, level: float = 0.95) -> Difference | None:
    """Compare two models on the same draws (draws,) each. value: b - a on all rows. None when undefined."""
    gaps = b - a
    ends = interval(gaps, level)
    if ends is None:
        return None
    gaps = gaps[~np.isnan(gaps)]
    smaller = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    return Difference(value, *ends, p_value=min(1.0, 2 * (smaller + 1) / (len(gaps) + 1)))


def user_draws(users: int, draws: int, seed: int) -> Iterator[Doubles]:
    """How often each user is drawn: (users,), summing to their number."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(0, users, users), minlength=users).astype(np.float64)


class _Binary:
    """AUC, GAUC, NE and calibration of one model under any weights of its users."""

    def __init__(
        self, labels: ArrayLike, predictions: ArrayLike, codes: NDArray[np.int32], users: int
    ) -> None:
        y, p = binary(labels), column("predictions", predictions)
        ordered = Ordered.of(y, p)
        self._y, self._ties = ordered.labels, ordered.ties
        self._users = codes[ordered.order]
        values, impressions = OrderedLists.of(y, p, codes, order=ordered.order).group_aucs()
        # Every code occurs, so groups are users, in the order of their codes.
        self._gauc_mass = np.where(np.isnan(values), 0, impressions)
        self._gauc_sum = np.nan_to_num(values) * self._gauc_mass
        self._rows = np.bincount(codes, minlength=users)
        self._positives = np.bincount(codes, y, minlength=users)
        self._promised = np.bincount(codes, p, minlength=users)
        self._loss = np.bincount(codes, row_losses(y, p), minlength=users)

    def __call__(self, drawn: Doubles) -> tuple[float, ...]:
        rows, positives = float(drawn @ self._rows), float(drawn @ self._positives)
        if not 0 < positives < rows:
            return (np.nan,) * 4
        rate = positives / rows
        entropy = -(positives * np.log(rate) + (rows - positives) * np.log(1 - rate))
        gauc_mass = float(drawn @ self._gauc_mass)
        gauc = float(drawn @ self._gauc_sum) / gauc_mass if gauc_mass > 0 else np.nan
        return (
            self._auc(drawn, positives, rows - positives),
            gauc,
            float(drawn @ self._loss) / entropy,
            float(drawn @ self._promised) / positives,
        )

    def _auc(self, drawn: Doubles, positives: float, negatives: float) -> float:
        mass = drawn[self._users]
        positive = mass * self._y
        negative = mass - positive
        if len(self._ties) < len(mass):
            positive = np.add.reduceat(positive, self._ties)
            negative = np.add.reduceat(negative, self._ties)
        below = np.cumsum(negative)
        below -= negative / 2
        return float(positive @ below) / (positives * negatives)


class _Regression:
    """RMSE, MAE and calibration of one model under any weights of its users."""

    def __init__(
        self, labels: ArrayLike, predictions: ArrayLike, codes: NDArray[np.int32], users: int
    ) -> None:
        y = column("labels", labels).astype(np.float64)
        p = column("predictions", predictions).astype(np.float64)
        parts: list[Array] = [np.ones(len(y)), np.square(p - y), np.abs(p - y), p, y]
        self._sums = np.stack([np.bincount(codes, part, minlength=users) for part in parts])

    def __call__(self, drawn: Doubles) -> tuple[float, ...]:
        rows, squares, gaps, promised, observed = self._sums @ drawn
        calibration = promised / observed if observed > 0 else np.nan
        return float(np.sqrt(squares / rows)), gaps / rows, calibration
