"""What a report is written from: the files of a run, and nothing else."""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mtl_rank.config import ProjectConfig
from mtl_rank.runs import Run

WINDOW = "test"
_OTHER_WINDOWS = ("examples", "scores", "valid", "train")


@dataclass(frozen=True)
class ReportFacts:
    """A run as it lies on disk.

    window: the measured window that the report shows; None when the run was never measured. others: measured as well.
    steps, epochs: rows of history.csv as numbers, without what is empty.
    """

    run: Run
    config: ProjectConfig
    info: Mapping[str, Any]
    metrics: Mapping[str, Any]
    details: Mapping[str, Any]
    checks: Mapping[str, Any]
    window: str | None
    others: tuple[str, ...]
    steps: tuple[Mapping[str, float], ...]
    epochs: tuple[Mapping[str, float], ...]

    @property
    def measured(self) -> Mapping[str, Any]:
        return self.metrics[self.window] if self.window else {"tasks": {}, "slices": {}}

    @property
    def drawn(self) -> Mapping[str, Any]:
        return self.details.get(self.window, {}) if self.window else {}

    @property
    def baselines(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self.metrics.get("baselines", {}).get(self.window, {})
        return found


def read_facts(run: Run) -> ReportFacts:
    """Raises RunError when files of the run cannot be read."""
    metrics = run.metrics()
    measured = [name for name in (WINDOW, *_OTHER_WINDOWS) if "tasks" in metrics.get(name, {})]
    history = list(_history(run))
    epochs = [row for row in history if "valid/ne" in row]
    # The last batch of an epoch is what was left over: it says little.
    ends = {row["step"] for row in epochs}
    steps = [row for row in history if any(name.startswith("lambda/") for name in row)]
    return ReportFacts(
        run=run,
        config=run.config(),
        info=run.info(),
        metrics=metrics,
        details=run.details(),
        checks=run.checks(),
        window=measured[0] if measured else None,
        others=tuple(measured[1:]),
        steps=tuple([row for row in steps if row["step"] not in ends] or steps),
        epochs=tuple(epochs),
    )


def _history(run: Run) -> Iterator[Mapping[str, float]]:
    path = run.folder / "history.csv"
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = {name: float(value) for name, value in row.items() if value}
            # A training that went astray has no place on an axis.
            yield {name: value for name, value in numbers.items() if math.isfinite(value)}
