"""mtlrank runs"""

from typing import Annotated, Any

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_line, print_table

NAME = "runs"
EXAMPLE = "Example: `mtlrank runs`"

_HEADER = (
    "run",
    "status",
    "tasks",
    "model",
    "weighting",
    "rows",
    "epochs",
    "fit",
    "valid NE",
    "test AUC",
    "test NE",
)


def command(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the runs of the project: tasks, model, weighting, status, time, and the numbers of the test window."""
    from mtl_rank.runs import list_runs

    runs = list_runs(project_folder(context))
    if as_json:
        print_json([{**run.info(), "metrics": run.metrics()} for run in runs])
        return
    if not runs:
        print_line("no runs yet; `mtlrank train` makes one")
        return
    rows = []
    for run in runs:
        info, metrics = run.info(), run.metrics()
        fit, tested = info.get("fit", {}), metrics.get("test", {}).get("tasks", {})
        seconds = fit.get("seconds")
        rows.append(
            (
                *(run.id, run.status(), ",".join(info["tasks"]), info["model"], info["weighting"]),
                *(info.get("rows", {}).get("train"), fit.get("epochs")),
                None if seconds is None else f"{seconds:.0f} s",
                fit.get("valid", {}).get("valid/ne"),
                _of_tasks(tested, "auc"),
                _of_tasks(tested, "ne"),
            )
        )
    print_table("runs", _HEADER, rows)


def _of_tasks(tasks: dict[str, Any], metric: str) -> str | None:
    known = {name: numbers.get(metric) for name, numbers in tasks.items() if numbers.get(metric) is not None}
    return "  ".join(f"{name} {value:.4f}" for name, value in known.items()) or None
