"""Post-hoc calibration: maps from logits to logits, one per task, fitted on validation rows.

Each map is strictly increasing up to rounding: it changes what a score promises, never whom it ranks first.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from mtl_rank.errors import RunError

Doubles = npt.NDArray[np.float64]

FORMAT_VERSION = 1
MOST_KNOTS = 200
"""Bins that isotonic regression starts from; each holds at least ROWS_PER_KNOT rows."""
ROWS_PER_KNOT = 50

# Between blocks that differ by rounding alone the map would be flat and tie the rows in between.
_LEAST_RISE = 1e-6


class Map(Protocol):
    """From logits to calibrated logits. Shape: (N,) -> (N,)"""

    @property
    def method(self) -> str: ...

    def __call__(self, logits: Doubles) -> Doubles: ...


@dataclass(frozen=True)
class Platt:
    """z' = slope z + intercept (Platt 1999)."""

    slope: float
    intercept: float
    method: ClassVar[str] = "platt"

    def __call__(self, logits: Doubles) -> Doubles:
        return self.slope * logits + self.intercept


@dataclass(frozen=True)
class Temperature:
    """z' = z / temperature (Guo et al. 2017)."""

    temperature: float
    method: ClassVar[str] = "temperature"

    def __call__(self, logits: Doubles) -> Doubles:
        return logits / self.temperature


@dataclass(frozen=True)
class Beta:
    """z' = a log p - b log(1 - p) + c with p = sigmoid(z), a and b >= 0 (Kull et al. 2017, eq. 4)."""

    a: float
    b: float
    c: float
    method: ClassVar[str] = "beta"

    def __call__(self, logits: Doubles) -> Doubles:
        return self.a * _log_sigmoid(logits) - self.b * _log_sigmoid(-logits) + self.c


@dataclass(frozen=True)
class Isotonic:
    """A piecewise linear map through the blocks of isotonic regression (Zadrozny and Elkan 2002), slope 1 outside.

    NOTE[DIFF] linear between the means of the blocks instead of constant within them: constants tie thousands
    of rows that the model could tell apart, the best ones among them.
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]
    method: ClassVar[str] = "isotonic"

    def __call__(self, logits: Doubles) -> Doubles:
        inside = np.clip(logits, self.knots[0], self.knots[-1])
        return np.interp(inside, self.knots, self.values) + (logits - inside)


def fit_temperature(logits: Doubles, labels: Doubles) -> Temperature | None:
    """None when the best slope is not positive."""
    (slope,) = _logistic(logits[:, None], _smoothed(labels), np.ones(1))
    return Temperature(1 / float(slope)) if slope > 0 else None


def fit_platt(logits: Doubles, labels: Doubles) -> Platt | None:
    """None when the best slope is not positive."""
    design = np.column_stack([logits, np.ones(len(logits))])
    slope, intercept = _logistic(design, _smoothed(labels), np.array([1.0, 0.0]))
    return Platt(float(slope), float(intercept)) if slope > 0 else None


def fit_beta(logits: Doubles, labels: Doubles) -> Beta | None:
    """A negative coefficient is set to 0 and the rest fitted again; None when neither is positive."""
    targets, ones = _smoothed(labels), np.ones(len(logits))
    parts = {"a": _log_sigmoid(logits), "b": -_log_sigmoid(-logits)}
    while parts:
        design = np.column_stack([*parts.values(), ones])
        *slopes, c = _logistic(design, targets, np.array([1.0] * len(parts) + [0.0]))
        if min(slopes) >= 0:
            found = dict(zip(parts, map(float, slopes), strict=True))
            return Beta(found.get("a", 0.0), found.get("b", 0.0), float(c)) if max(slopes) > 0 else None
        parts.pop(list(parts)[int(np.argmin(slopes))])
    return None


def fit_isotonic(logits: Doubles, labels: Doubles) -> Isotonic | None:
    """Isotonic regression on equal-mass bins of the logit; None when all labels fall into one block.

    Each bin counts one row of the base rate beside its own, so that no probability becomes 0 or 1.
    """
    order = np.argsort(logits, kind="stable")
    z, y = logits[order], labels[order]
    bins = int(np.clip(len(z) // ROWS_PER_KNOT, 1, MOST_KNOTS))
    starts = np.searchsorted(z, z[np.arange(bins) * len(z) // bins], "left")
    starts = np.unique(starts)
    rows = np.diff(starts, append=len(z)).astype(np.float64)
    rates = (np.add.reduceat(y, starts) + y.mean()) / (rows + 1)
    centres = np.add.reduceat(z, starts) / rows
    block = _pool(rates, rows + 1)
    count = block[-1] + 1
    mass = np.bincount(block, rows + 1, minlength=count)
    values = np.bincount(block, rates * (rows + 1), minlength=count) / mass
    knots = np.bincount(block, centres * rows, minlength=count) / np.bincount(block, rows, minlength=count)
    if count < 2:
        return None
    targets = np.log(values / (1 - values))
    return Isotonic(tuple(knots.tolist()), tuple(targets.tolist()))


FITS: Mapping[str, Callable[[Doubles, Doubles], Map | None]] = {
    "platt": fit_platt,
    "isotonic": fit_isotonic,
    "temperature": fit_temperature,
    "beta": fit_beta,
}
_MAPS: Mapping[str, TypeAdapter[Map]] = {
    kind.method: TypeAdapter(kind) for kind in (Platt, Isotonic, Temperature, Beta)
}


class Chosen(NamedTuple):
    """map: None = the logits are left as they are. loss: mean log loss in cross-validation, by method."""

    map: Map | None
    loss: dict[str, float]


def choose(logits: Doubles, labels: Doubles, folds: int = 5) -> Chosen:
    """The map with the lowest log loss on rows it was not fitted on, if it is better than none beyond doubt.

    logits, labels: (N,) of 0/1, in the order of time. Folds are consecutive rows. Beyond doubt: the mean gain
    over the folds is more than twice its standard error.
    """
    parts = np.array_split(np.arange(len(logits)), folds)
    if min(map(len, parts)) < ROWS_PER_KNOT:
        return Chosen(None, {})
    losses = {"none": [_loss(logits[part], labels[part]) for part in parts]}
    for name, fit in FITS.items():
        losses[name] = []
        for part in parts:
            rest = np.setdiff1d(np.arange(len(logits)), part, assume_unique=True)
            found = fit(logits[rest], labels[rest]) if 0 < labels[rest].sum() < len(rest) else None
            held = logits[part] if found is None else found(logits[part])
            losses[name].append(_loss(held, labels[part]))
    means = {name: float(np.mean(values)) for name, values in losses.items()}
    best = min(means, key=lambda name: means[name])
    gains = np.array(losses["none"]) - np.array(losses[best])
    doubtful = gains.mean() <= 2 * gains.std(ddof=1) / np.sqrt(folds)
    return Chosen(None if best == "none" or doubtful else FITS[best](logits, labels), means)


@dataclass(frozen=True)
class Calibration:
    """The maps of a run. maps: task -> map; a task without one keeps its logits."""

    maps: Mapping[str, Map]

    def __call__(self, logits: Doubles, tasks: list[str]) -> Doubles:
        """Calibrated logits. Shape: (N, T) -> (N, T), the columns being `tasks`."""
        if not self.maps:
            return logits
        calibrated = logits.copy()
        for name, map_of_task in self.maps.items():
            calibrated[:, tasks.index(name)] = map_of_task(logits[:, tasks.index(name)])
        return calibrated

    def save(self, path: Path) -> None:
        """Write JSON; numbers come back to the last bit."""
        tasks = {name: {"method": found.method, **asdict(found)} for name, found in self.maps.items()}  # type: ignore[call-overload]
        path.write_text(json.dumps({"format": FORMAT_VERSION, "tasks": tasks}, indent=1), encoding="utf-8")

    @staticmethod
    def load(path: Path, tasks: list[str]) -> "Calibration":
        """Read a saved calibration; none where there is no file. Raises RunError when it is damaged."""
        if not path.exists():
            return Calibration({})
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT_VERSION:
                raise ValueError(f"format {document['format']}, expected {FORMAT_VERSION}")
            maps = {}
            for name, raw in document["tasks"].items():
                fields = dict(raw)
                maps[name] = _MAPS[fields.pop("method")].validate_python(fields)
            if not set(maps) <= set(tasks):
                raise ValueError("its tasks are not those of the run")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise RunError(f"{path}: cannot be read: {str(error).splitlines()[0]}; train again") from None
        return Calibration(maps)


def _loss(logits: Doubles, labels: Doubles) -> float:
    return float(np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean())


def _log_sigmoid(logits: Doubles) -> Doubles:
    logs: Doubles = -np.logaddexp(0, -logits)
    return logs


def _smoothed(labels: Doubles) -> Doubles:
    """Platt's targets (1999, eq. 2): as if one more row of each class had been seen."""
    positives = float(labels.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)
    return labels * high + (1 - labels) * low


def _logistic(design: Doubles, targets: Doubles, start: Doubles) -> Doubles:
    """Maximum likelihood of a logistic regression by Newton's method with step halving. Shape: (N, d) -> (d,)"""
    beta = start

    def loss(beta: Doubles) -> float:
        z = design @ beta
        return float((np.logaddexp(0, z) - targets * z).sum())

    value = loss(beta)
    for _ in range(100):
        p: Doubles = np.exp(_log_sigmoid(design @ beta))
        gradient = design.T @ (p - targets)
        hessian = (design * (p * (1 - p))[:, None]).T @ design
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        size = 1.0
        while (moved := loss(beta - size * step)) > value and size > 1e-6:
            size /= 2
        if moved > value:
            break
        beta, gain, value = beta - size * step, value - moved, moved
        if gain <= 1e-12 * max(1.0, value):
            break
    return beta


def _pool(rates: Doubles, mass: Doubles) -> npt.NDArray[np.intp]:
    """Pool adjacent violators (Ayer et al. 1955): for each bin the number of its block, rates rising strictly."""
    blocks: list[tuple[float, float, int]] = []
    for rate, weight in zip(rates.tolist(), mass.tolist(), strict=True):
        bins = 1
        while blocks and blocks[-1][0] * (1 + _LEAST_RISE) >= rate:
            above, above_weight, above_bins = blocks.pop()
            rate = (above * above_weight + rate * weight) / (above_weight + weight)
            weight, bins = weight + above_weight, bins + above_bins
        blocks.append((rate, weight, bins))
    sizes = np.array([bins for _, _, bins in blocks], np.intp)
    return np.repeat(np.arange(len(blocks)), sizes)
