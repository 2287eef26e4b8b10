"""mtlrank runs"""

from typing import Annotated

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_line, print_table

NAME = "runs"
EXAMPLE = "Example: `mtlrank runs`"


def command(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the runs of the project: tasks, model, weighting, status and test AUC."""
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
        info, tested = run.info(), run.metrics().get("test", {}).get("tasks", {})
        auc = "  ".join(
            f"{name} {numbers['auc']:.4f}"
            for name, numbers in tested.items()
            if numbers.get("auc") is not None
        )
        seconds = info.get("fit", {}).get("seconds")
        rows.append(
            (
                run.id,
                run.status(),
                ",".join(info["tasks"]),
                info["model"],
                info["weighting"],
                None if seconds is None else f"{seconds:.0f} s",
                auc or None,
            )
        )
    print_table("runs", ("run", "status", "tasks", "model", "weighting", "fit", "test AUC"), rows)
