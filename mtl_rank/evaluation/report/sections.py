"""The sections of a report, each from the facts of a run."""

from collections.abc import Iterator, Mapping
from typing import Any

from mtl_rank.evaluation.report import charts
from mtl_rank.evaluation.report.facts import ReportFacts
from mtl_rank.evaluation.report.markup import Figures, Html, element, facts, shown, table

SHOWN_SLICES = 12
NOTHING = Html("")


def headline(found: ReportFacts, title: str) -> Html:
    """What the run is, how good it is, what it is better than, and what is wrong with its data."""
    tasks = found.measured["tasks"]
    when = str(found.info.get("created_at", ""))[:16].replace("T", " ")
    lead = f"Run {found.run.id}, trained {when} UTC"
    if found.window:
        lead += f", measured on the {found.measured['rows']:,} rows of the {found.window} window"
    links = [("#slices", "slices"), ("#learning", "learning"), ("#data", "data"), ("#run", "the run")]
    targets = [*((f"#task-{name}", name) for name in tasks), *links]
    return Html(
        element("h1", title)
        + element("p", lead, css="lead")
        + element("nav", *(element("a", name, href=target) for target, name in targets))
        + _flags(found)
        + element("div", *(_tile(found, name, numbers) for name, numbers in tasks.items()), css="tiles")
        + _numbers(found)
    )


def _flags(found: ReportFacts) -> Html:
    loud = [f for f in found.checks.get("flags", []) if f["kind"] in ("leak", "dead view", "running count")]
    if not loud:
        return NOTHING
    items = [element("li", element("b", flag["kind"]), ": ", flag["text"]) for flag in loud]
    return element("div", element("h3", "Look at the data first"), element("ul", *items), css="card flags")


def _tile(found: ReportFacts, name: str, numbers: Mapping[str, Any]) -> Html:
    binary = numbers["kind"] == "binary"
    key, label = ("auc", "AUC") if binary else ("rmse", "RMSE")
    ends = numbers["intervals"].get(key)
    verdict, css = _verdict(found, name, numbers)
    return element(
        "div",
        element("div", f"{name}, {label}", css="name"),
        element("div", numbers[key] if numbers[key] is not None else "–", css="value"),
        element("div", _between(ends) if ends else numbers["note"] or "no interval", css="range"),
        element("div", verdict, css=f"verdict {css}"),
        css="card tile",
    )


def _verdict(found: ReportFacts, name: str, numbers: Mapping[str, Any]) -> tuple[str, str]:
    """The run against the best simpler model."""
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
    gain = (numbers[key] - others[best]) * (1 if binary else -1)
    word, css = ("above", "better") if gain > 0 else ("below", "worse")
    if not binary:
        word = "better than" if gain > 0 else "worse than"
    return f"{abs(gain):.4f} {word} {best}", css


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
            interval = _between(n["intervals"].get("rmse"))
            last = [n["mae"], n["spearman"], n["rows"], n["mean_label"]]
            rows.append([name, n["rmse"], interval, n["calibration"], *last])
            css.append(None)
            for model, others in found.baselines.items():
                rows.append([model, others.get(name, {}).get("rmse"), *[""] * 6])
                css.append("baseline")
        parts.append(table(header, rows, css))
    note = (
        "95 %: interval over draws of users. GAUC: AUC within a user, by impressions. NE: log loss over that of "
        "the base rate, below 1 is better than the rate. Calibration: mean prediction over mean label. ECE: mean "
        "gap between predicted and observed rate in 20 bins."
    )
    return element("div", *parts, element("p", note, css="note"), css="card numbers")


def _binary_table(found: ReportFacts, binary: Mapping[str, Mapping[str, Any]]) -> Html:
    keys = {"gauc": "GAUC", "gauc_day": "by day", "pr_auc": "PR-AUC", "ece": "ECE"}
    if any(numbers.get("attainable_auc") is not None for numbers in binary.values()):
        keys = {"attainable_auc": "attainable", **keys}
    header = ("task", "AUC", "95 %", "NE", "calibration", *keys.values(), "rows", "positive")
    rows: list[list[object]] = []
    css: list[str | None] = []
    for name, n in binary.items():
        main = [name, n["auc"], _between(n["intervals"].get("auc")), n["ne"], n["calibration"]]
        rows.append([*main, *(n[key] for key in keys), n["rows"], _percent(n["mean_label"])])
        css.append(None)
        for model, others in found.baselines.items():
            o = others.get(name, {})
            blank = [""] * (len(keys) + 2)
            rows.append([model, o.get("auc"), "", o.get("ne"), o.get("calibration"), *blank])
            css.append("baseline")
    return table(header, rows, css)


def task_sections(found: ReportFacts, figures: Figures) -> Iterator[Html]:
    """One section per output: is it better, is the probability right, what does it look at."""
    for name, numbers in found.measured["tasks"].items():
        curves = found.drawn.get("curves", {}).get(name)
        parts = list(_comparison(found, figures, name, numbers))
        if curves is not None:
            parts += _curves(figures, curves, numbers)
        parts += _importance(found, figures, name)
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
        task = found.config.tasks[name]
        where = f"on rows where {found.config.tasks[task.given].label} is 1" if task.given else "on every row"
        about = f"Column {task.label}, {where}."
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


def slices_section(found: ReportFacts) -> Html:
    """The worst slices of each output."""
    parts: list[Html] = []
    for name, slices in found.measured["slices"].items():
        known = [one for one in slices if one["note"] is None]
        if not known:
            continue
        binary = found.measured["tasks"][name]["kind"] == "binary"
        keys = {"ne": "NE", "auc": "AUC"} if binary else {"rmse": "RMSE"}
        rows = [
            (f"{one['by']}: {one['value']}", *(one[key] for key in keys), one["calibration"], one["rows"])
            for one in known[:SHOWN_SLICES]
        ]
        header = ("slice", *keys.values(), "calibration", "rows")
        parts.append(element("div", element("h3", name), table(header, rows), css="card"))
    if not parts:
        return NOTHING
    note = "Worst first; slices with few rows are left out here. Cold: training gave the key no embedding of its own."
    return Html(
        element("h2", "For whom is it worse?", id="slices")
        + element("p", note, css="note")
        + element("div", *parts, css="charts wide")
    )


def learning_section(found: ReportFacts, figures: Figures) -> Html:
    """How validation went from epoch to epoch, and how the tasks were balanced."""
    tasks = list(found.config.tasks)
    best = found.info.get("fit", {}).get("best_epoch")
    parts = []
    for metric, title, reference in (("ne", "normalised loss", 1.0), ("auc", "AUC", None)):
        rows = [
            {"task": task, "epoch": int(row["epoch"]) + 1, "value": row[key]}
            for row in found.epochs
            for task in tasks
            for key in (f"valid/{task}/{metric}", f"valid/{task}/n{'mse' if metric == 'ne' else metric}")
            if key in row
        ]
        if rows:
            caption = "On the validation rows; the dashed line marks the epoch that was kept."
            spec = charts.by_epoch(rows, title, None if best is None else best + 1, reference)
            parts.append(figures.add(f"{title[0].upper()}{title[1:]}", spec, caption))
    for kind, title in (("lambda", "Lambda"), ("share", "Share of the total loss")):
        rows = [
            {"task": task, "step": row["step"], "value": row[f"{kind}/{task}"]}
            for row in _thinned(found.steps)
            for task in tasks
            if f"{kind}/{task}" in row
        ]
        if rows and len(tasks) > 1:
            caption = f"Weighting {found.config.weighting.method}, over the steps of the training."
            parts.append(figures.add(title, charts.by_step(rows, title.lower()), caption))
    parts += _experts(found, figures)
    if not parts:
        return NOTHING
    return Html(element("h2", "How it learned", id="learning") + element("div", *parts, css="charts"))


def _thinned(steps: tuple[Mapping[str, float], ...], most: int = 150) -> tuple[Mapping[str, float], ...]:
    return steps[:: max(1, -(-len(steps) // most))]


def _experts(found: ReportFacts, figures: Figures) -> Iterator[Html]:
    gates = found.drawn.get("gates", [])
    for level in sorted({gate["level"] for gate in gates}):
        rows = [
            {"task": gate["task"], "expert": f"expert {i + 1}", "number": i, "weight": weight}
            for gate in gates
            if gate["level"] == level
            for i, weight in enumerate(gate["utilisation"])
        ]
        name = f"Experts of level {level}" if len({gate["level"] for gate in gates}) > 1 else "Use of experts"
        yield figures.add(
            name, charts.experts(rows), "Mean weight that each task's gate gives to each expert."
        )


def data_section(found: ReportFacts, figures: Figures) -> Html:
    """What the checks found, coverage of the views, and what moved until the measured window."""
    parts: list[Html] = []
    moved = found.drawn.get("drift", {})
    if moved:
        caption = "PSI between training and test rows; right of the line is drift."
        parts.append(figures.add("What moved most", charts.drift(moved), caption))
    views = found.checks.get("views", [])
    if views:
        header = ("feature view", "train", "valid")
        rows = [(v["name"], *(_percent(v["coverage"].get(w)) for w in ("train", "valid"))) for v in views]
        box = (element("h3", "Rows with a value"), element("figcaption", "Share of rows, after the join."))
        parts.append(element("div", *box, table(header, rows), css="card"))
    quiet = [
        f for f in found.checks.get("flags", []) if f["kind"] not in ("leak", "dead view", "running count")
    ]
    if quiet:
        items = [element("li", flag["text"]) for flag in quiet]
        parts.append(element("div", element("h3", "Notes"), element("ul", *items), css="card note"))
    if not parts:
        return NOTHING
    return Html(element("h2", "The data", id="data") + element("div", *parts, css="charts"))


def run_section(found: ReportFacts) -> Html:
    """What the run was: windows, rows, versions, timings, the whole configuration."""
    info, config = found.info, found.config
    fit, rows, split = info.get("fit", {}), info.get("rows", {}), config.split
    windows = {
        "training rows": f"{shown(rows.get('train'))} before {split.valid:%Y-%m-%d %H:%M}",
        "validation rows": f"{shown(rows.get('valid'))} before {split.test:%Y-%m-%d %H:%M}",
        f"{found.window or 'test'} rows": shown(found.measured.get("rows")),
        "examples": config.examples,
        "feature service": config.feature_service,
        "prepared data": info.get("prepared"),
    }
    trained = {
        "model": config.model.name,
        "weighting": config.weighting.method,
        "parameters": f"{shown(fit.get('parameters'))} and {shown(fit.get('embedding_parameters'))} of embeddings",
        "batch, precision": f"{shown(fit.get('batch_size'))}, {fit.get('precision')}",
        "epochs": f"{shown(fit.get('epochs'))}, the weights of epoch {shown((fit.get('best_epoch') or 0) + 1)} kept",
        "time": f"{fit.get('seconds', 0):,.1f} s, {fit.get('rows_per_second', 0):,.0f} rows/s",
        "seed": info.get("seed"),
    }
    versions = {**info.get("versions", {}), "git commit": info.get("git_commit") or "–"}
    cards = [element("div", facts(pairs), css="card") for pairs in (windows, trained, versions)]
    return Html(
        element("h2", "What the run was", id="run")
        + element("div", *cards, css="charts")
        + element("details", element("summary", "The whole configuration"), element("pre", config.to_yaml()))
        + element("footer", "Written by mtlrank from ", element("code", found.run.id), ".")
    )


def _between(ends: Any) -> str:
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
