"""mtlrank evaluate"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_table
from mtlrank_cli.progress import progress

NAME = "evaluate"
EXAMPLE = "Example: `mtlrank evaluate --split test --json`"

_BINARY = {
    "auc": "AUC",
    "attainable_auc": "attainable",
    "gauc": "GAUC",
    "ne": "NE",
    "log_loss": "log loss",
    "calibration": "calibration",
    "ece": "ECE",
}
_REGRESSION = {"rmse": "RMSE", "mae": "MAE", "spearman": "Spearman", "calibration": "calibration"}


def command(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="A run, or the beginning of its name. Default: the latest.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    examples: Annotated[
        str | None, typer.Option(help="Other labelled rows instead of a split: a parquet path or SQL.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a run: AUC, GAUC, NE and calibration per task and per chain product."""
    folder = project_folder(context)
    from mtl_rank import evaluate

    with progress() as reporter:
        result = evaluate(folder, run, split, examples, reporter).as_dict()
    if as_json:
        print_json(result)
    else:
        print_evaluation(result)


def print_evaluation(result: Mapping[str, Any]) -> None:
    """One table for probabilities, one for values where there are regression tasks."""
    for kind, columns in (("binary", _BINARY), ("regression", _REGRESSION)):
        tasks = [numbers for numbers in result["tasks"].values() if numbers["kind"] == kind]
        if not tasks:
            continue
        # A column that is undefined everywhere (no known truth) would only be noise.
        shown = {key: title for key, title in columns.items() if any(t.get(key) is not None for t in tasks)}
        print_table(
            f"{result['window']}: {result['rows']:,} rows, GAUC by {result['gauc_key']}",
            (
                "task",
                "rows",
                "positives",
                *shown.values(),
                *(["note"] if any(t["note"] for t in tasks) else []),
            ),
            (
                (
                    numbers["name"],
                    numbers["rows"],
                    numbers["positives"],
                    *(numbers.get(key) for key in shown),
                    *([numbers["note"] or ""] if any(t["note"] for t in tasks) else []),
                )
                for numbers in tasks
            ),
        )
