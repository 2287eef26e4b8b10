"""mtlrank report"""

from typing import Annotated

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_line

NAME = "report"
EXAMPLE = "Example: `mtlrank report`"


def command(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="A run, or the beginning of its name. Default: the latest.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the page about a run anew, with all that was measured since; one file that opens without a network."""
    folder = project_folder(context)
    from mtl_rank import report

    path = report(folder, run)
    if as_json:
        print_json({"report": str(path)})
    else:
        print_line(f"report: {path}")
