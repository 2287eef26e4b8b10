"""The other sections of a report, each from the facts of a run."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from mtl_rank.evaluation.report import charts
from mtl_rank.evaluation.report.facts import ReportFacts
from mtl_rank.pages import Figures, Html, dotted, element, facts, shown, table

SHOWN_SLICES = 12
_NOTES = {
    "drift": "drift from training to validation",
    "constant": "constant",
    "missing": "mostly missing",
    "unseen": "mostly unseen in training",
}
NOTHING = Html("")


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
    parts = [*_validation(found, figures), *_balance(found, figures), *_experts(found, figures)]
    if not parts:
        return NOTHING
    return Html(element("h2", "How it learned", id="learning") + element("div", *parts, css="charts"))


def _validation(found: ReportFacts, figures: Figures) -> Iterator[Html]:
    best = found.info.get("fit", {}).get("best_epoch")
    curves = {
        "Normalised loss": (("ne", "nmse"), 1.0, "On the validation rows; 1 is a constant prediction."),
        "AUC": (("auc",), None, "On the validation rows; the dashed line is the epoch that was kept."),
    }
    for title, (metrics, reference, caption) in curves.items():
        rows = [
            {"task": task, "epoch": int(row["epoch"]) + 1, "value": row[f"valid/{task}/{metric}"]}
            for row in found.epochs
            for task in found.config.tasks
            for metric in metrics
            if f"valid/{task}/{metric}" in row
        ]
        if rows:
            spec = charts.by_epoch(rows, title, None if best is None else best + 1, reference)
            yield figures.add(title, spec, caption)


def _balance(found: ReportFacts, figures: Figures) -> Iterator[Html]:
    tasks = found.config.tasks
    if len(tasks) < 2:
        return
    for kind, title in (("lambda", "Lambda"), ("share", "Share of the total loss")):
        rows = [
            {"task": task, "step": row["step"], "value": row[f"{kind}/{task}"]}
            for row in _averaged(found.steps)
            for task in tasks
            if f"{kind}/{task}" in row
        ]
        if rows:
            caption = f"Weighting {found.config.weighting.method}, over the steps of the training."
            yield figures.add(title, charts.by_step(rows, title.lower()), caption)


def _averaged(steps: Sequence[Mapping[str, float]], most: int = 60) -> Iterator[Mapping[str, float]]:
    """Means of neighbours: each row is one batch, and many rows are a cloud."""
    size = max(1, -(-len(steps) // most))
    for start in range(0, len(steps), size):
        part = steps[start : start + size]
        names = [name for name in part[0] if all(name in row for row in part)]
        yield {name: fmean(row[name] for row in part) for name in names}


def _experts(found: ReportFacts, figures: Figures) -> Iterator[Html]:
    gates = found.drawn.get("gates", [])
    levels = sorted({gate["level"] for gate in gates})
    for level in levels:
        of_level = f", level {level}" if len(levels) > 1 else ""
        rows = [
            {"task": gate["task"], "expert": f"expert {i + 1}", "number": i, "weight": weight}
            for gate in gates
            if gate["level"] == level
            for i, weight in enumerate(gate["utilisation"])
        ]
        caption = "Mean weight that each task's gate gives to each expert."
        yield figures.add(f"Use of experts{of_level}", charts.experts(rows), caption)
        rows = [
            {"task": task, "epoch": int(row["epoch"]) + 1, "value": row[f"gate/{task}/{level}/entropy"]}
            for row in found.epochs
            for task in found.config.tasks
            if f"gate/{task}/{level}/entropy" in row
        ]
        if rows:
            caption = "Entropy of a row's gate: 1 = all experts alike, 0 = one expert alone."
            yield figures.add(
                f"Do gates choose?{of_level}", charts.by_epoch(rows, "entropy", None, None), caption
            )


def data_section(found: ReportFacts, figures: Figures) -> Html:
    """What the checks found, coverage of the views, and what moved until the measured window."""
    parts: list[Html] = []
    moved = found.drawn.get("drift", {})
    if moved:
        caption = "PSI between training and test rows; right of the line is drift."
        parts.append(figures.add("What moved most", charts.drift(moved), caption))
    parts += _views(found)
    parts += _notes(found)
    inputs = found.checks.get("inputs", [])
    if not parts and not inputs:
        return NOTHING
    return Html(
        element("h2", "The data", id="data")
        + element("div", *parts, css="charts")
        + (
            element("details", element("summary", f"All {len(inputs)} inputs"), _inputs(found))
            if inputs
            else ""
        )
    )


def _views(found: ReportFacts) -> Iterator[Html]:
    """Of each feature view: on how many rows it says anything, and how old what it says is."""
    views = found.checks.get("views", [])
    if not views:
        return
    header = ("feature view", "train", "valid", "age")
    rows = [
        (
            *(view["name"], *(_percent(view["coverage"].get(name), 1) for name in ("train", "valid"))),
            _age((view["matches"] or {}).get("median_age")),
        )
        for view in views
    ]
    caption = "Share of rows after the join; median age of the feature row at the time of the example."
    box = (element("h3", "Rows with a value"), element("figcaption", caption))
    yield element("div", *box, table(header, rows), css="card")


def _notes(found: ReportFacts) -> Iterator[Html]:
    """The quiet flags, a line per kind; the loud ones stand at the head."""
    by_kind: dict[str, list[str]] = {}
    for flag in found.checks.get("flags", []):
        if flag["kind"] in _NOTES:
            by_kind.setdefault(_NOTES[flag["kind"]], []).append(flag["where"])
    if by_kind:
        items = [element("li", element("b", kind), ": ", ", ".join(names)) for kind, names in by_kind.items()]
        yield element("div", element("h3", "To look at"), element("ul", *items), css="card note")


def _inputs(found: ReportFacts) -> Html:
    """What the checks know of each input, in the order of the schema."""
    tasks = list(found.config.tasks)
    header = (
        *("input", "role", "values", "missing", "missing, valid", "unseen, valid", "PSI"),
        *(f"alone, {task}" for task in tasks),
    )
    rows = [
        (
            *(dotted(one["origin"]), one["role"], one["vocabulary"], _percent(one["missing"]["train"])),
            *(_percent(one["missing"]["valid"]), _percent(one["unseen"]["valid"]), one["psi"]),
            *(one["alone"].get(task) for task in tasks),
        )
        for one in found.checks["inputs"]
    ]
    note = (
        "Values: with an embedding of their own, or quantile bins. PSI: between training and validation rows. "
        "Alone: AUC of the input by itself, or its rank correlation; near 1 is a leak."
    )
    return element("div", table(header, rows), element("p", note, css="note"), css="card")


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
        "speed": f"{fit.get('rows_per_second', 0):,.0f} rows/s",
        "time": ", ".join(f"{name} {value:,.0f} s" for name, value in info.get("seconds", {}).items())
        or None,
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


def _percent(share: float | None, digits: int = 2) -> str | None:
    return None if share is None else f"{share:.{digits}%}"


def _age(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.1f} s"
