"""Tasks with more than two classes: what is measured of all classes together."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mtl_rank import metrics
from mtl_rank.config import ProjectConfig
from mtl_rank.evaluation.outcomes import Doubles, Outcomes


@dataclass(frozen=True)
class ClassNumbers:
    """One task on the rows where its label is known. None = undefined.

    ne: log loss / entropy of the classes' shares. auc: mean of each class against the others. accuracy: of the most
    likely class. kappa: quadratic, of the most likely class; spearman: of the expected class; both of ordinal tasks.
    Each class by itself is measured as an output of its own, and so is the expected class.
    """

    name: str
    kind: str
    rows: int
    classes: int
    log_loss: float | None
    ne: float | None
    accuracy: float | None
    auc: float | None
    kappa: float | None = None
    spearman: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def labels_by_output(labels: Doubles, config: ProjectConfig) -> dict[str, Doubles]:
    """The label of every output that is not a chain product, NaN where it is undefined.

    Of a class 1 where the label is it, of an ordinal task the class itself. labels: (N, T), as LabelReader gives.
    """
    found: dict[str, Doubles] = {}
    names = config.class_columns()
    for i, (name, task) in enumerate(config.tasks.items()):
        own = labels[:, i]
        if not task.has_classes:
            found[name] = own
            continue
        known = ~np.isnan(own)
        if task.kind == "ordinal":
            values = np.array(task.classes, np.float64)
            found[name] = np.where(known, values[np.where(known, own, 0).astype(np.int64)], np.nan)
        found |= {column: np.where(known, own == k, np.nan) for k, column in enumerate(names[name])}
    return found


def measure_classes(outcomes: Outcomes) -> tuple[ClassNumbers, ...]:
    """Every task with classes."""
    return tuple(_measure(name, columns, outcomes) for name, columns in outcomes.classes.items())


def _measure(name: str, columns: tuple[str, ...], outcomes: Outcomes) -> ClassNumbers:
    known = ~np.isnan(outcomes.labels[columns[0]])
    y = np.argmax([outcomes.labels[column][known] for column in columns], axis=0)
    p = np.column_stack([outcomes.predictions[column][known] for column in columns])
    found = metrics.class_numbers(y, p)
    if (ordinal := name in outcomes.kinds) and len(y):
        found["kappa"] = metrics.quadratic_kappa(y, p.argmax(axis=1), len(columns))
        found["spearman"] = metrics.spearman(y, outcomes.predictions[name][known])
    kind = "ordinal" if ordinal else "multiclass"
    return ClassNumbers(name, kind, rows=len(y), classes=len(columns), **found)
