"""The section of each output: is it better, is the probability right, what does it look at."""

from collections.abc import Iterator, Mapping
from typing import Any

from mtl_rank.evaluation.report import charts
from mtl_rank.evaluation.report.facts import ReportFacts
from mtl_rank.pages import Figures, Html, element, facts, shown

_LISTS = {"ndcg": "NDCG", "map": "MAP", "recall": "recall"}


def task_sections(found: ReportFacts, figures: Figures) -> Iterator[Html]:
    """One section per output: is it better, is the probability right, what does it look at."""
    for name, numbers in found.measured["tasks"].items():
        curves = found.drawn.get("curves", {}).get(name)
        parts = list(_comparison(found, figures, name, numbers))
        if curves is not None:
            parts += _curves(figures, curves, numbers)
        parts += _importance(found, figures, name)
        parts += _others(numbers)
        if parts:
            yield Html(
                element("h2", name, id=f"task-{name}")
                + element("p", _meaning(found, name, numbers), css="note")
                + element("div", *parts, css="charts")
            )


def _meaning(found: ReportFacts, name: str, numbers: Mapping[str, Any]) -> str:
    chain = found.config.products().get(name)
    if chain is not None:
        about = f"The product {' × '.join(chain)}, on every row."
    else:
        task = found.config.tasks[found.config.task_of(name)]
        where = f"on rows where {found.config.tasks[task.given].label} is 1" if task.given else "on every row"
        about = f"Column {task.label}, {where}."
        if name in (columns := found.config.class_columns().get(found.config.task_of(name), ())):
            about = f"Class {task.classes[columns.index(name)]} of column {task.label}, {where}."
    before = numbers.get("uncalibrated")
    if before:
        about += (
            f" Calibrated on the validation rows: NE {shown(before['ne'])} before, {shown(numbers['ne'])} after; "
            f"ECE {shown(before['ece'])} before, {shown(numbers['ece'])} after."
        )
    return about


def _comparison(
    found: ReportFacts, figures: Figures, name: str, numbers: Mapping[str, Any]
) -> Iterator[Html]:
    if numbers["kind"] != "binary" or numbers["auc"] is None:
        return
    low, high = numbers["intervals"].get("auc", (None, None))
    rows = [{"model": "this run", "auc": numbers["auc"], "low": low, "high": high, "own": True}]
    rows += [
        {"model": model, "auc": tasks[name]["auc"], "low": None, "high": None, "own": False}
        for model, tasks in found.baselines.items()
        if tasks.get(name, {}).get("auc") is not None
    ]
    # The run alone stands in the headline.
    if len(rows) == 1:
        return
    yield figures.add(
        "Beside simpler models",
        charts.beside(rows, numbers.get("attainable_auc")),
        "AUC with its 95 % interval; trained on the same inputs and rows.",
    )


def _curves(figures: Figures, curves: Mapping[str, Any], numbers: Mapping[str, Any]) -> Iterator[Html]:
    kind = numbers["kind"]
    if curves["reliability"]["rows"]:
        bins = f"{len(curves['reliability']['rows'])} bins of about {curves['reliability']['rows'][0]:,.0f} rows."
        yield figures.add("Is the prediction right?", charts.reliability(curves["reliability"], kind), bins)
    if curves["thresholds"].get("recall"):
        caption = f"AUC {shown(numbers['auc'])}; the diagonal is chance."
        yield figures.add("ROC", charts.roc(curves["thresholds"]), caption)
        caption = f"PR-AUC {shown(numbers['pr_auc'])}; the line is the base rate {numbers['mean_label']:.2%}."
        spec = charts.precision_recall(curves["thresholds"], numbers["mean_label"])
        yield figures.add("Precision and recall", spec, caption)
    if curves["distribution"] and numbers["auc"] is not None:
        caption = "How the two classes are scored, each as a whole."
        yield figures.add("Scores by label", charts.distribution(curves["distribution"]), caption)
    if curves["activity"].get("rows"):
        users = sum(curves["activity"]["users"])
        caption = f"{users:,} users with both classes, by their rows in the window; the line is chance."
        yield figures.add("GAUC by activity", charts.activity(curves["activity"]), caption)


def _importance(found: ReportFacts, figures: Figures, name: str) -> Iterator[Html]:
    rows = [one for one in found.drawn.get("importance", []) if one["task"] == name]
    key = "auc_drop" if any(one["auc_drop"] is not None for one in rows) else "loss_rise"
    values = [{"input": one["input"], "value": one[key]} for one in rows if one[key] is not None]
    if values:
        title = "AUC lost" if key == "auc_drop" else "loss added"
        caption = f"{title} when the values of the input are dealt out anew among the rows."
        yield figures.add("What it looks at", charts.importance(values, title), caption)


def _others(numbers: Mapping[str, Any]) -> Iterator[Html]:
    """The numbers that are not in the table at the head."""
    if numbers["kind"] != "binary" or not numbers["rows"]:
        return
    used, left_out = numbers["gauc_users"], numbers["gauc_left_out"]
    pairs = {
        "mean label": numbers["mean_label"],
        "mean prediction": numbers["mean_prediction"],
        "log loss": numbers["log_loss"],
        "Brier score": numbers["brier"],
        **{f"{title} at 10": numbers[key] for key, title in _LISTS.items()},
        "users in GAUC": f"{shown(used)}, {shown(left_out)} of one class left out",
    }
    yield element("div", element("h3", "More numbers"), facts(pairs), css="card")
