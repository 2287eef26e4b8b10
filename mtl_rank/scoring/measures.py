"""What is worth knowing about a scored chunk: missing features and the distribution of each task's scores.

Both are counts, so those of a job are the sums of those of its chunks, whoever scored them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mtl_rank.features.repository import FeatureRepository

Doubles = npt.NDArray[np.float64]

_GROUPS = 10
_CELLS_PER_UNIT = 10
_FURTHEST = 40.0


@dataclass(frozen=True)
class Measures:
    """Counts over scored rows.

    rows: how many. missing: by view, the rows for which it had no value at all. cells: by task, how many scores lie
    in each cell of a grid: `logit(p) * 10` for probabilities, `asinh(x) * 10` for values, rounded down.
    """

    rows: int
    missing: Mapping[str, int]
    cells: Mapping[str, Mapping[int, int]]

    @staticmethod
    def total(parts: Iterable["Measures"]) -> "Measures":
        """The counts of all parts together."""
        rows, missing, cells = 0, Counter[str](), dict[str, Counter[int]]()
        for part in parts:
            rows += part.rows
            missing.update(part.missing)
            for task, counts in part.cells.items():
                cells.setdefault(task, Counter()).update(counts)
        return Measures(rows, missing, cells)

    @property
    def missing_rates(self) -> dict[str, float]:
        """Share of the rows without any value of each view."""
        return {view: count / self.rows if self.rows else 0.0 for view, count in self.missing.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON, whose keys are text."""
        cells = {task: {str(cell): n for cell, n in counts.items()} for task, counts in self.cells.items()}
        return {"rows": self.rows, "missing": dict(self.missing), "cells": cells}

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> "Measures":
        """What `as_dict` gave."""
        cells = {
            task: {int(cell): n for cell, n in counts.items()} for task, counts in document["cells"].items()
        }
        return Measures(document["rows"], document["missing"], cells)


def count_missing(table: pl.DataFrame, views: Mapping[str, list[str]]) -> dict[str, int]:
    """By view, the rows of a retrieved table without any value of it. views: by view, its columns."""
    absent = {
        view: pl.all_horizontal([_absent(table[name]) for name in columns]).sum()
        for view, columns in views.items()
    }
    return (
        {view: int(count) for view, count in table.select(**absent).row(0, named=True).items()}
        if views
        else {}
    )


def views_of(repository: FeatureRepository) -> dict[str, list[str]]:
    """The views of a service with the columns that they have in a retrieved table."""
    projections = repository.service.feature_view_projections
    return {
        view.name_to_use(): [f"{view.name_to_use()}__{field.name}" for field in view.features]
        for view in projections
        if view.features
    }


def stability_index(before: Mapping[int, int], now: Mapping[int, int]) -> float | None:
    """Population stability index of two distributions of cells: sum over ten groups of (q - p) ln(q / p).

    The groups hold a tenth each of `before`, as near as whole cells allow. Half a row is added to each group,
    so that an empty one counts as rare and not as impossible. Below 0.1 is usually taken for no change, above 0.25
    for one to look into. None when either is empty.
    """
    if not before or not now:
        return None
    edges = _edges(before)
    p, q = _shares(before, edges), _shares(now, edges)
    return float(np.sum((q - p) * np.log(q / p)))


def _edges(cells: Mapping[int, int]) -> npt.NDArray[np.int64]:
    """The first cells of the second to the last group."""
    order = np.array(sorted(cells))
    reached = np.cumsum([cells[int(cell)] for cell in order])
    tenths = np.arange(1, _GROUPS) * (reached[-1] / _GROUPS)
    # A cell belongs to the group in which it begins, save that no group is empty.
    return np.unique(order[np.minimum(np.searchsorted(reached, tenths) + 1, len(order) - 1)])


def _shares(cells: Mapping[int, int], edges: npt.NDArray[np.int64]) -> Doubles:
    groups = np.searchsorted(edges, np.array(list(cells)), side="right")
    counts = np.bincount(groups, weights=np.array(list(cells.values())), minlength=len(edges) + 1) + 0.5
    shares: Doubles = counts / counts.sum()
    return shares


def count_cells(values: Doubles, is_probability: bool) -> dict[int, int]:
    """How many finite values lie in each cell of the grid of `Measures`."""
    values = values[np.isfinite(values)]
    if is_probability:
        with np.errstate(divide="ignore"):
            position = np.log(values) - np.log1p(-values)
    else:
        position = np.arcsinh(values)
    grid = np.floor(np.clip(position, -_FURTHEST, _FURTHEST) * _CELLS_PER_UNIT).astype(np.int64)
    cells, counts = np.unique(grid, return_counts=True)
    return dict(zip(cells.tolist(), counts.tolist(), strict=True))


def _absent(column: pl.Series) -> pl.Expr:
    # On-demand views in pandas give NaN for what they cannot compute.
    name = pl.col(column.name)
    return name.is_null() | name.is_nan() if column.dtype.is_float() else name.is_null()
