"""mtlrank tune"""

from typing import Annotated, Any

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.options import split_names
from mtlrank_cli.output import print_json, print_line, print_table
from mtlrank_cli.progress import progress

NAME = "tune"
EXAMPLE = "Example: `mtlrank tune --tasks ctr,cvr --trials 20 --prefer ctr=2`"


def command(
    context: typer.Context,
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated tasks. Default: all of mtlrank.yaml.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Of the study in all; what is there already counts.")] = 20,
    search: Annotated[
        list[str] | None,
        typer.Option(help="Other keys: fit.lr=0.0005..0.01 or 'model.experts=2|4|8'; repeat."),
    ] = None,
    prefer: Annotated[
        list[str] | None, typer.Option(help="task=weight: what a task counts for the best point; repeat.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any key of mtlrank.yaml, such as fit.epochs=5; repeat."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Search the lambdas of several tasks: what each gains at the cost of which.

    The same command continues a study that was stopped; started several times at once, the processes share it.
    """
    folder = project_folder(context)
    from mtl_rank import tune
    from mtl_rank.config import parse_settings

    with progress() as reporter:
        found = tune(
            folder,
            split_names(tasks) if tasks is not None else None,
            trials=trials,
            search=search or [],
            prefer=prefer or [],
            settings=parse_settings(settings or []),
            reporter=reporter,
        )
    page = folder / "tune" / found.study / "front.html"
    if as_json:
        print_json({**found.as_dict(), "page": str(page)})
        return
    _print_front(found)
    weights = ", ".join(f"{task} {weight:g}" for task, weight in found.prefer.items())
    print_line(f"best for {weights}: trial {found.best}, trained by\n  {found.best_point.command}")
    if found.failed:
        print_line(
            f"failed: trials {', '.join(map(str, found.failed))}; the last one: {[*found.failed.values()][-1]}"
        )
    print_line(f"page: {page}")


def _print_front(found: Any) -> None:
    """The points that nothing beats: lambdas, and per task loss, AUC and the change against training it alone."""
    tasks, searched = list(found.alone), list(found.best_point.settings)
    print_table(
        f"{found.study}: the front of {len(found.points)} trainings, normalised validation losses",
        (
            "trial",
            *(f"lambda {task}" for task in tasks),
            *searched,
            *(f"{task} {column}" for task in tasks for column in ("loss", "AUC", "vs alone")),
        ),
        [
            (
                f"{point.trial} *" if point.trial == found.best else f"{point.trial}",
                *point.lambdas.values(),
                *point.settings.values(),
                *(
                    cell
                    for task in tasks
                    for cell in (
                        point.losses[task],
                        point.auc.get(task),
                        f"{point.against(found.alone)[task]:+.2%}",
                    )
                ),
            )
            for point in found.front
        ],
    )
