"""mtlrank compare"""

from typing import TYPE_CHECKING, Annotated

import typer

from mtlrank_cli.context import project_folder, rows_from_here
from mtlrank_cli.output import print_json, print_line, print_table
from mtlrank_cli.progress import progress

if TYPE_CHECKING:
    from mtl_rank.evaluation.compare import Comparison

NAME = "compare"
EXAMPLE = "Example: `mtlrank compare 20260401-1200 20260402-0900`"


def command(
    context: typer.Context,
    runs: Annotated[
        list[str],
        typer.Argument(help="Two or more runs, or the beginnings of their names; the first is the base."),
    ],
    split: Annotated[str, typer.Option(help="train, valid or test of the first run's project.")] = "test",
    examples: Annotated[
        str | None,
        typer.Option(
            help="Other labelled rows instead of a split: a parquet path, from the current folder or else from the "
            "project, or one SELECT, whose paths start at the project."
        ),
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of users, for intervals and p-values.", min=10)] = 500,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure runs on the same rows: is the difference more than chance? Leaves a page in the first run's folder."""
    folder = project_folder(context)
    from mtl_rank import compare
    from mtl_rank.runs import find_run

    rows = None if examples is None else rows_from_here(examples)
    with progress() as reporter:
        found = compare(folder, runs, split, rows, draws, reporter)
    page = find_run(folder, found.runs[0]).folder / "compare.html"
    if as_json:
        print_json({**found.as_dict(), "page": str(page)})
        return
    if found.settings:
        settings = [(key, *values) for key, values in found.settings.items()]
        print_table("settings that differ", ("setting", *found.runs), settings)
    for i in range(1, len(found.runs)):
        _print(found, i)
    for note in found.notes:
        print_line(f"not quite fair: {note}")
    print_line(f"page: {page}")


def _print(found: "Comparison", i: int) -> None:
    rows = []
    for one in found.metrics:
        gap = one.differences[i - 1]
        between = "-" if gap is None else f"{gap.low:+.4f} to {gap.high:+.4f}"
        numbers = (None, between, None) if gap is None else (gap.value, between, gap.p_value)
        rows.append(
            (
                one.output,
                one.metric,
                one.values[0],
                one.values[i],
                *numbers,
                one.verdict(i - 1) or one.note or "",
            )
        )
    print_table(
        f"{found.runs[i]} against {found.runs[0]}, {found.window}: {found.rows:,} rows",
        ("output", "metric", "first", "this", "difference", "95 %", "p", "verdict"),
        rows,
    )
