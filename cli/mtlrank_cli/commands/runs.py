"""mtlrank runs"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_line, print_table, print_warning

if TYPE_CHECKING:
    from mtl_rank.runs import Run

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
    """List the runs of the project: tasks, model, weighting, status, time, and the numbers of the test window.

    A run whose files cannot be read is `damaged`; why is told on stderr.
    """
    from mtl_rank.runs import list_runs

    runs = list_runs(project_folder(context))
    damages = [run.damage() for run in runs]
    for damage in damages:
        if damage is not None:
            print_warning(damage)
    if as_json:
        print_json([_document(run, damage) for run, damage in zip(runs, damages, strict=True)])
    elif not runs:
        print_line("no runs yet; `mtlrank train` makes one")
    else:
        print_table("runs", _HEADER, [_row(*pair) for pair in zip(runs, damages, strict=True)])


def _document(run: "Run", damage: str | None) -> dict[str, Any]:
    if damage is not None:
        return {"id": run.id, "status": "damaged", "note": damage}
    return {**run.info(), "metrics": run.metrics()}


def _row(run: "Run", damage: str | None) -> tuple[Any, ...]:
    if damage is not None:
        return (run.id, "damaged", *[None] * (len(_HEADER) - 2))
    info, metrics = run.info(), run.metrics()
    fit, tested = info.get("fit", {}), metrics.get("test", {}).get("tasks", {})
    seconds = fit.get("seconds")
    return (
        *(run.id, run.status(), ",".join(info["tasks"]), info["model"], info["weighting"]),
        *(info.get("rows", {}).get("train"), fit.get("epochs")),
        None if seconds is None else f"{seconds:.0f} s",
        fit.get("valid", {}).get("valid/ne"),
        _of_tasks(tested, "auc"),
        _of_tasks(tested, "ne"),
    )


def _of_tasks(tasks: dict[str, Any], metric: str) -> str | None:
    known = {name: numbers.get(metric) for name, numbers in tasks.items() if numbers.get(metric) is not None}
    return "  ".join(f"{name} {value:.4f}" for name, value in known.items()) or None
