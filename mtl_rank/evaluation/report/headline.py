"""The head of a report: how good the run is, what it is better than, and what is wrong with its data."""

from collections.abc import Iterator, Mapping
from typing import Any

from mtl_rank.evaluation.report.facts import ReportFacts
from mtl_rank.pages import Html, element, shown, table


def headline(found: ReportFacts, title: str) -> Html:
    """What the run is, how good it is, what it is better than, and what is wrong with its data."""
    tasks = found.measured["tasks"]
    when = str(found.info.get("created_at", ""))[:16].replace("T", " ")
    lead = f"Run {found.run.id}, trained {when} UTC"
    if found.window:
        lead += f", measured on the {found.measured['rows']:,} rows of the {found.window} window"
    links = [("#slices", "slices"), ("#learning", "learning"), ("#data", "data"), ("#run", "the run")]
    if found.others:
        links.insert(1, ("#since", "measured since"))
    targets = [*((f"#task-{name}", name) for name in tasks), *links]
    return Html(
        element("h1", title)
        + element("p", lead, css="lead")
        + element("nav", *(element("a", name, href=target) for target, name in targets))
        + _flags(found)
        + Html("").join(element("p", note, css="note") for note in found.measured.get("notes", []))
        + element("div", *(_tile(found, name, numbers) for name, numbers in tasks.items()), css="tiles")
        + _numbers(found)
    )


def _flags(found: ReportFacts) -> Html:
    loud = [f for f in found.checks.get("flags", []) if f["kind"] in ("leak", "dead view", "running count")]
    if not loud:
        return Html("")
    items = [element("li", element("b", flag["kind"]), ": ", flag["text"]) for flag in loud]
    return element("div", element("h3", "Look at the data first"), element("ul", *items), css="card flags")


def _tile(found: ReportFacts, name: str, numbers: Mapping[str, Any]) -> Html:
    binary = numbers["kind"] == "binary"
    key, label = ("auc", "AUC") if binary else ("rmse", "RMSE")
    ends = numbers["intervals"].get(key)
    verdict, css = _verdict(found, name, numbers)
    best = numbers.get("attainable_auc")
    return element(
        "div",
        element("div", f"{name}, {label}", css="name"),
        element("div", numbers[key], css="value"),
        element("div", between(ends) if ends else numbers["note"] or "no interval", css="range"),
        element("div", f"attainable {shown(best)}", css="range") if best is not None else "",
        element("div", verdict, css=f"verdict {css}"),
        css="card tile",
    )


def _verdict(found: ReportFacts, name: str, numbers: Mapping[str, Any]) -> tuple[str, str]:
    """The run against the best simpler model; coloured where that lies outside the run's interval."""
    binary = numbers["kind"] == "binary"
    key = "auc" if binary else "rmse"
    others = {
        model: tasks[name][key]
        for model, tasks in found.baselines.items()
        if tasks.get(name, {}).get(key) is not None
    }
    if not others or numbers[key] is None:
        return "", ""
    best = (max if binary else min)(others, key=lambda model: others[model])
    gap = abs(numbers[key] - others[best])
    better = (numbers[key] > others[best]) == binary
    low, high = numbers["intervals"].get(key, (float("-inf"), float("inf")))
    css = "" if low <= others[best] <= high else "better" if better else "worse"
    word = ("above" if better else "below") if binary else ("less" if better else "more") + " than"
    return f"{shown(gap)} {word} {best}", css


def _numbers(found: ReportFacts) -> Html:
    """All numbers of the outputs, the simpler models below each."""
    tasks = found.measured["tasks"]
    if not tasks:
        return element("p", "The run was not measured: the examples end before its test window.")
    parts: list[Html] = []
    binary = {name: numbers for name, numbers in tasks.items() if numbers["kind"] == "binary"}
    if binary:
        parts.append(_binary_table(found, binary))
    values = {name: numbers for name, numbers in tasks.items() if numbers["kind"] == "regression"}
    if values:
        header = ("task", "RMSE", "95 %", "calibration", "MAE", "Spearman", "rows", "mean label")
        rows: list[list[object]] = []
        css: list[str | None] = []
        for name, n in values.items():
            interval = between(n["intervals"].get("rmse"))
            last = [n["mae"], n["spearman"], n["rows"], n["mean_label"]]
            rows.append([name, n["rmse"], interval, n["calibration"], *last])
            css.append(None)
            for model, others in found.baselines.items():
                other = others.get(name, {})
                rows.append([model, other.get("rmse"), "", other.get("calibration"), *[""] * 4])
                css.append("baseline")
        parts.append(table(header, rows, css))
    parts += _classes_table(found)
    note = (
        "95 %: interval over draws of users. GAUC: AUC within a user, by impressions. NE: log loss over that of "
        "the base rate, below 1 is better than the rate. Calibration: mean prediction over mean label. ECE: mean "
        "gap between predicted and observed rate in 20 bins."
    )
    return element("div", *parts, element("p", note, css="note"), css="card numbers")


def _classes_table(found: ReportFacts) -> Iterator[Html]:
    """Tasks with more than two classes, all classes together; each by itself is an output above."""
    classes = found.measured.get("classes", {})
    if classes:
        header = ("all classes", "NE", "AUC", "accuracy", "kappa", "Spearman", "log loss", "classes", "rows")
        keys = ("ne", "auc", "accuracy", "kappa", "spearman", "log_loss", "classes", "rows")
        yield table(header, [(name, *(one[key] for key in keys)) for name, one in classes.items()])


def _binary_table(found: ReportFacts, binary: Mapping[str, Mapping[str, Any]]) -> Html:
    keys = {"gauc": "GAUC", "gauc_day": "by day", "pr_auc": "PR-AUC", "ece": "ECE"}
    if any(numbers.get("attainable_auc") is not None for numbers in binary.values()):
        keys = {"attainable_auc": "attainable", **keys}
    header = ("task", "AUC", "95 %", "NE", "calibration", *keys.values(), "rows", "positive")
    rows: list[list[object]] = []
    css: list[str | None] = []
    for name, n in binary.items():
        main = [name, n["auc"], between(n["intervals"].get("auc")), n["ne"], n["calibration"]]
        rows.append([*main, *(n[key] for key in keys), n["rows"], _percent(n["mean_label"])])
        css.append(None)
        for model, others in found.baselines.items():
            o = others.get(name, {})
            blank = [""] * (len(keys) + 2)
            rows.append([model, o.get("auc"), "", o.get("ne"), o.get("calibration"), *blank])
            css.append("baseline")
    return table(header, rows, css)


def between(ends: Any) -> str:
    return f"{shown(ends[0])} to {shown(ends[1])}" if ends else ""


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
