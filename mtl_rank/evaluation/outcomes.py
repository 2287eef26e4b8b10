"""Labels and predictions side by side: what everything else here measures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from mtl_rank.config import ProjectConfig

Kind = Literal["binary", "regression"]
Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Outcomes:
    """N measured rows; every array is (N,).

    labels: output that is no chain product -> value, NaN = undefined. predictions: output -> value.
    truth: task -> true value where known.
    uncalibrated: output -> what was predicted before calibration, where that differs.
    baselines: name of a simpler model -> output -> its prediction.
    users: codes of the column `user_key`; days: of the event timestamp, since 1970.
    repeated: rows with the keys and time of an earlier one.
    userless: rows whose user is not known, each with a code of its own; None = there is none.
    slices: name -> values that rows are told apart by. classes: task -> its outputs that are probabilities of a class.
    """

    kinds: Mapping[str, Kind]
    chains: Mapping[str, tuple[str, ...]]
    user_key: str
    labels: Mapping[str, Floats]
    predictions: Mapping[str, Floats]
    users: Codes
    days: Codes
    truth: Mapping[str, Doubles] = field(default_factory=dict)
    uncalibrated: Mapping[str, Floats] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    slices: Mapping[str, pl.Series] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    userless: npt.NDArray[np.bool_] | None = None
    repeated: int = 0

    @property
    def rows(self) -> int:
        return len(self.users)

    def label_of(self, output: str) -> Floats:
        """The label of an output; of a chain product known on every row whose chain of labels is known."""
        if output in self.labels:
            return self.labels[output]
        return chain_label([self.labels[name] for name in self.chains[output]])

    def truth_of(self, output: str) -> Doubles | None:
        """The true values of an output; None where they are not known."""
        names = self.chains.get(output, (output,))
        if not all(name in self.truth for name in names):
            return None
        product: Doubles = np.prod([self.truth[name] for name in names], axis=0)
        return product

    def user_days(self) -> Codes:
        """(N,) codes of user and day."""
        if not self.rows:
            return self.users
        days = self.days - self.days.min()
        span = int(days.max()) + 1
        if int(self.users.max()) * span < 2**31:
            codes: Codes = self.users * np.int32(span) + days
            return codes
        pairs = self.users.astype(np.int64) * span + days
        return np.unique(pairs, return_inverse=True)[1].astype(np.int32)


class Spilled(Mapping[str, Floats]):
    """Arrays in files, read whole each time they are asked for: one output at a time is in memory."""

    def __init__(self, folder: Path, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        self._folder = folder
        self._dtypes = dtypes

    def __getitem__(self, name: str) -> Floats:
        # Asked for first: a name that is not there must be a KeyError.
        dtype = self._dtypes[name]
        return np.fromfile(self._folder / name, dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._dtypes)

    def __len__(self) -> int:
        return len(self._dtypes)


class Collector:
    """Takes rows part by part and writes their numbers to files in a folder.

    Labels of probabilities are 0, 1 or NaN, for which float32 is enough. Other columns stay in memory.
    """

    def __init__(self, config: ProjectConfig, folder: Path) -> None:
        self._folder = folder / "outcomes"
        self._binary = {name for name, kind in config.outputs().items() if kind == "binary"}
        self._dtypes: dict[str, dict[str, np.dtype[Any]]] = {}
        self._series: dict[str, list[pl.Series]] = {}
        self.rows = 0

    def add(
        self,
        labels: Mapping[str, Doubles],
        predictions: Mapping[str, Doubles],
        columns: Mapping[str, pl.Series],
        uncalibrated: Mapping[str, Doubles],
        baselines: Mapping[str, Mapping[str, Floats]],
    ) -> None:
        """One part: (n,) values each. columns: whatever else is kept, by name."""
        self.rows += len(next(iter(predictions.values())))
        for name, values in labels.items():
            self._append("label", name, values, np.float32 if name in self._binary else np.float64)
        for name, values in predictions.items():
            self._append("prediction", name, values, np.float64)
        for name, values in uncalibrated.items():
            self._append("uncalibrated", name, values, np.float64)
        for model, outputs in baselines.items():
            for name, found in outputs.items():
                self._append(f"baseline {model}", name, found, np.float64)
        for name, series in columns.items():
            self._series.setdefault(name, []).append(series)

    def columns(self, prefix: str) -> list[str]:
        """Names of the kept columns that begin so."""
        return [name for name in self._series if name.startswith(prefix)]

    def column(self, name: str) -> pl.Series:
        """The values of a kept column, which is given up."""
        return pl.concat(self._series.pop(name), rechunk=True)

    def arrays(self, kind: str) -> Spilled:
        """label, prediction, uncalibrated, or `baseline NAME`."""
        return Spilled(self._folder / kind, self._dtypes.get(kind, {}))

    def baselines(self) -> dict[str, Mapping[str, Floats]]:
        models = [kind for kind in self._dtypes if kind.startswith("baseline ")]
        return {model.removeprefix("baseline "): self.arrays(model) for model in models}

    def _append(self, kind: str, name: str, values: Floats, dtype: npt.DTypeLike) -> None:
        folder = self._folder / kind
        if name not in self._dtypes.setdefault(kind, {}):
            folder.mkdir(parents=True, exist_ok=True)
            self._dtypes[kind][name] = np.dtype(dtype)
        with (folder / name).open("ab") as file:
            file.write(np.ascontiguousarray(values, dtype).data)


def outputs_of(config: ProjectConfig) -> dict[str, Kind]:
    """Every output with its kind."""
    return config.outputs()


def codes_of(values: pl.Series) -> tuple[Codes, npt.NDArray[np.bool_] | None]:
    """Int32 codes of distinct values, in their order, and where there is no value; None = everywhere is one.

    Rows without a value are not of one user: each has a code of its own, beyond the others.
    """
    if values.dtype.is_float():
        values = values.fill_nan(None)
    ranks = values.rank("dense").cast(pl.Int32)
    if not ranks.null_count():
        return ranks.to_numpy(), None
    without = values.is_null().to_numpy()
    codes = ranks.fill_null(0).to_numpy().copy()
    codes[without] = codes.max() + 1 + np.arange(without.sum(), dtype=np.int32)
    return codes, without


def days_of(times: pl.Series) -> Codes:
    """Days since 1970, in UTC."""
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
        times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    days: Codes = times.cast(pl.Date).cast(pl.Int32).fill_null(0).to_numpy()
    return days


def chain_label(labels: Sequence[Floats]) -> Floats:
    """The label of a chain product: 0 where an ancestor is 0, NaN where an ancestor is unknown."""
    product = labels[0]
    for label in labels[1:]:
        product = np.where(product == 0, 0, np.where(product == 1, label, np.nan))
    return product
