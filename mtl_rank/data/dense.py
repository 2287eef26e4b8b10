"""From numbers to standardised values and quantile bins."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from mtl_rank.data.vocabulary import FIRST, MISSING, Ids
from mtl_rank.errors import DataError

Transform = Literal["standard", "log1p", "quantile", "none"]
Values = npt.NDArray[np.float64]

_SAMPLE_LIMIT = 1 << 20
_QUANTILE_KNOTS = 1001

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class DenseScaler:
    """A fitted dense input.

    mean, std: of the transformed training values. knots: quantiles of the raw values (transform quantile).
    edges: inner borders of the quantile bins; empty = no bins.
    has_missing: training rows had missing values, so the network gets an indicator of them.
    """

    transform: Transform
    mean: float
    std: float
    knots: tuple[float, ...]
    edges: tuple[float, ...]
    has_missing: bool

    @property
    def bin_rows(self) -> int:
        """Embedding rows of the bins: missing, unseen (unused) and one per bin; 0 without bins."""
        return FIRST + len(self.edges) + 1 if self.edges else 0

    def scale(self, values: Values) -> npt.NDArray[np.float32]:
        """Standardised values, float32 (N,); missing (NaN) becomes 0, the training mean."""
        if self.transform == "none":
            scaled = values
        else:
            scaled = (_transformed(values, self.transform, self.knots) - self.mean) / self.std
        # What is too large for float32 would be infinite there.
        return np.clip(np.nan_to_num(scaled, nan=0.0), -_LARGEST, _LARGEST).astype(np.float32)

    def bins(self, values: Values) -> Ids:
        """Ids of the quantile bins, int32 (N,); missing = 0."""
        ids = np.searchsorted(np.asarray(self.edges), values, side="right").astype(np.int32) + np.int32(FIRST)
        ids[np.isnan(values)] = MISSING
        return ids


def as_numbers(values: pl.Series, origin: str) -> Values:
    """Float64 (N,) with NaN for null. Raises DataError for text, and for numbers that are infinite as float32."""
    if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"{origin}: a dense input needs numbers, the column is {values.dtype}")
    numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if (np.abs(numbers) > _LARGEST).any():
        raise DataError(
            f"{origin}: holds infinite values, or numbers beyond {_LARGEST:.1e}; replace them at the source by null or "
            "a number"
        )
    return numbers


class DenseFitter:
    """Collects what a DenseScaler needs over streamed batches, in bounded memory.

    Quantiles come from at most 2**20 values: exact below that, then from every 2nd, 4th, ... value.
    """

    def __init__(self, transform: Transform, bins: int) -> None:
        self._transform = transform
        self._bins = bins
        self._sample: list[Values] = []
        self._sampled = 0
        self._stride = 1
        self._skip = 0
        self._missing = 0
        self._count = 0
        self._mean = 0.0
        self._m2 = 0.0

    def add(self, values: Values) -> None:
        present = values[~np.isnan(values)]
        self._missing += len(values) - len(present)
        if not len(present):
            return
        self._add_moments(_transformed(present, self._transform, ()))
        self._add_sample(present)

    def fit(self) -> DenseScaler:
        sample = np.sort(np.concatenate(self._sample)) if self._sample else np.zeros(0)
        edges: tuple[float, ...] = ()
        knots: tuple[float, ...] = ()
        if self._bins and len(sample):
            borders = np.quantile(sample, np.arange(1, self._bins) / self._bins, method="inverted_cdf")
            # A border at the smallest value would leave the first bin empty.
            edges = tuple(np.unique(borders[borders > sample[0]]).tolist())
        mean, variance = self._mean, self._m2 / max(self._count, 1)
        if self._transform == "quantile" and len(sample):
            knots = tuple(np.quantile(sample, np.linspace(0, 1, _QUANTILE_KNOTS)).tolist())
            # Ties make the transformed values uneven: their moments are not those of a uniform.
            spread = _transformed(sample, self._transform, knots)
            mean, variance = float(spread.mean()), float(spread.var())
        std = math.sqrt(variance)
        return DenseScaler(
            transform=self._transform,
            mean=mean,
            # A deviation this small against the mean is the rounding of a constant.
            std=std if std > 1e-12 * max(abs(mean), 1.0) else 1.0,
            knots=knots,
            edges=edges,
            has_missing=self._missing > 0,
        )

    def _add_moments(self, values: Values) -> None:
        """Chan et al. 1983: combine mean and squared deviations of two parts without cancellation."""
        count, mean = len(values), float(values.mean())
        m2 = float(((values - mean) ** 2).sum())
        total = self._count + count
        delta = mean - self._mean
        self._m2 += m2 + delta**2 * self._count * count / total
        self._mean += delta * count / total
        self._count = total

    def _add_sample(self, present: Values) -> None:
        # A copy, for a view would keep every value alive.
        taken = present[self._skip :: self._stride].copy()
        self._skip = (self._skip - len(present)) % self._stride
        self._sample.append(taken)
        self._sampled += len(taken)
        while self._sampled > _SAMPLE_LIMIT:
            halved = np.concatenate(self._sample)[::2]
            self._skip += self._stride if self._sampled % 2 else 0
            self._sample, self._sampled = [halved], len(halved)
            self._stride *= 2


def _transformed(values: Values, transform: Transform, knots: tuple[float, ...]) -> Values:
    if transform == "log1p":
        return np.sign(values) * np.log1p(np.abs(values))
    if transform == "quantile" and knots:
        return np.where(np.isnan(values), np.nan, np.interp(values, knots, np.linspace(0, 1, len(knots))))
    return values
