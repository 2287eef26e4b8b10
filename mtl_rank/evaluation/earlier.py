"""What an earlier evaluation of the same predictions knows that a later one was not asked for."""

import math
from collections.abc import Mapping
from typing import Any

from mtl_rank.evaluation.slices import badness

_SUMS = ("rows", "positives", "mean_label", "mean_prediction")


def same_predictions(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two evaluations, as they are stored, measured the same rows and the same predictions of them."""
    tasks, others = one.get("tasks", {}), other.get("tasks", {})
    return (
        (one.get("rows"), list(tasks)) == (other.get("rows"), list(others))
        and one.get("gauc_key") == other.get("gauc_key")
        and all(_alike(tasks[name].get(key), others[name].get(key)) for name in tasks for key in _SUMS)
    )


def _alike(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=1e-9))


def with_earlier(document: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation with the intervals of an earlier one that drew more, and its slices by other columns."""
    merged = dict(document)
    if before.get("draws", 0) > document["draws"]:
        merged["draws"] = before["draws"]
        merged["tasks"] = {
            name: {**numbers, "intervals": before["tasks"][name]["intervals"]}
            for name, numbers in document["tasks"].items()
        }
    found: dict[str, list[dict[str, Any]]] = {}
    for name in {**document["slices"], **before.get("slices", {})}:
        own, earlier = document["slices"].get(name, []), before.get("slices", {}).get(name, [])
        columns = {one["by"] for one in own}
        found[name] = sorted([*own, *(one for one in earlier if one["by"] not in columns)], key=badness)
    merged["slices"] = found
    return merged
