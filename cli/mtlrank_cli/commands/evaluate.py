"""mtlrank evaluate"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mtl_rank.errors import ConfigError
from mtlrank_cli.context import project_folder, rows_from_here
from mtlrank_cli.options import split_names
from mtlrank_cli.output import print_json, print_line, print_table
from mtlrank_cli.progress import progress

NAME = "evaluate"
EXAMPLE = "Example: `mtlrank evaluate --by position --baselines trees`"

SHOWN_SLICES = 8

_BINARY = {
    "auc": "AUC",
    "attainable_auc": "attainable",
    "gauc": "GAUC",
    "gauc_day": "GAUC/day",
    "ndcg": "NDCG@10",
    "ne": "NE",
    "log_loss": "log loss",
    "calibration": "calibration",
    "ece": "ECE",
}
_REGRESSION = {"rmse": "RMSE", "mae": "MAE", "spearman": "Spearman", "calibration": "calibration"}
_CLASSES = {
    "log_loss": "log loss",
    "ne": "NE",
    "accuracy": "accuracy",
    "auc": "mean AUC",
    "kappa": "kappa",
    "spearman": "Spearman",
}
_FIRST = {"binary": "auc", "regression": "rmse"}


def command(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run, or the beginning of its name. Default: the latest, or the one that wrote --scores."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, valid or test. Default: test; with --scores every labelled row."),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(
            help="Other labelled rows instead of a split: a parquet path, from the current folder or else from the "
            "project, or one SELECT, whose paths start at the project."
        ),
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(
            help="Measure scores that were written before, joined by their keys: file.duckdb or file.duckdb:table, "
            "from the current folder or else from the project."
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Measure each value of this column or view__feature, the worst first; repeat."),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(help="Comma-separated models to train beside it: constant, item_rate, logistic, trees."),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Draws of users for the 95 % intervals: 0 = none, or at least 10. Default: evaluation.draws.",
            min=0,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a run: AUC, GAUC, NE and calibration per task and per chain product, for all and for each slice."""
    if scores is not None and baselines is not None:
        raise ConfigError(
            "--scores: baselines need the features of the rows; evaluate the run without --scores"
        )
    folder = project_folder(context)
    from mtl_rank import evaluate

    with progress() as reporter:
        result = evaluate(
            folder,
            run,
            split,
            None if examples is None else rows_from_here(examples),
            reporter,
            scores=None if scores is None else rows_from_here(scores),
            by=by or (),
            draws=draws,
            baselines=split_names(baselines),
        )
    document = result.as_dict()
    if result.baselines:
        document["baselines"] = result.baselines
    if as_json:
        print_json(document)
    else:
        print_evaluation(document)


def print_evaluation(result: Mapping[str, Any], baselines: Mapping[str, Any] | None = None) -> None:
    """One table for probabilities, one for values, then the worst slices and the simpler models."""
    if result.get("coverage") is not None:
        print_line(f"{result['coverage']:.2%} of the labelled rows have a score")
    for note in result.get("notes", []):
        print_line(f"note: {note}")
    for kind, columns in (("binary", _BINARY), ("regression", _REGRESSION)):
        _print_tasks(result, kind, columns)
    _print_classes(result)
    _print_slices(result)
    _print_baselines(baselines or result.get("baselines", {}))


def _print_tasks(result: Mapping[str, Any], kind: str, columns: Mapping[str, str]) -> None:
    tasks = [numbers for numbers in result["tasks"].values() if numbers["kind"] == kind]
    if not tasks:
        return
    # A column that is undefined everywhere (no known truth) would only be noise.
    shown = {key: title for key, title in columns.items() if any(t.get(key) is not None for t in tasks)}
    first = _FIRST[kind]
    intervals = [t["intervals"].get(first) for t in tasks]
    notes = any(t["note"] for t in tasks)
    print_table(
        f"{result['window']}: {result['rows']:,} rows, GAUC by {result['gauc_key']}",
        (
            *("task", "rows", "positives", *shown.values()),
            *([f"95 % of {columns[first]}"] if any(intervals) else []),
            *(["note"] if notes else []),
        ),
        (
            (
                *(numbers["name"], numbers["rows"], numbers["positives"]),
                *(numbers.get(key) for key in shown),
                *([_range(found)] if any(intervals) else []),
                *([numbers["note"] or ""] if notes else []),
            )
            for numbers, found in zip(tasks, intervals, strict=True)
        ),
    )


def _print_classes(result: Mapping[str, Any]) -> None:
    tasks = result.get("classes", {}).values()
    shown = [key for key in _CLASSES if any(numbers[key] is not None for numbers in tasks)]
    if tasks:
        print_table(
            "tasks with more than two classes, all of them together",
            ("task", "kind", "rows", "classes", *(_CLASSES[key] for key in shown)),
            [
                (name, numbers["kind"], numbers["rows"], numbers["classes"], *(numbers[key] for key in shown))
                for name, numbers in result["classes"].items()
            ],
        )


def _print_slices(result: Mapping[str, Any]) -> None:
    for name, slices in result.get("slices", {}).items():
        known = [one for one in slices if one["note"] is None]
        if not known:
            continue
        binary = result["tasks"][name]["kind"] == "binary"
        keys = ("ne", "auc") if binary else ("rmse",)
        left_out = len(slices) - min(len(known), SHOWN_SLICES)
        print_table(
            f"{name}, the worst slices first" + (f" ({left_out} more with --json)" if left_out else ""),
            ("by", "value", "rows", "mean label", *(key.upper() for key in keys), "calibration"),
            (
                (
                    one["by"],
                    one["value"],
                    one["rows"],
                    one["mean_label"],
                    *(one[k] for k in keys),
                    one["calibration"],
                )
                for one in known[:SHOWN_SLICES]
            ),
        )


def _print_baselines(baselines: Mapping[str, Any]) -> None:
    rows = [
        (model, task, found.get("auc"), found.get("ne"), found.get("calibration"), found.get("rmse"))
        for model, tasks in baselines.items()
        for task, found in tasks.items()
    ]
    if rows:
        print_table("simpler models", ("model", "task", "AUC", "NE", "calibration", "RMSE"), rows)


def _range(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
