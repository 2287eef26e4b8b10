"""mtlrank init"""

from pathlib import Path
from typing import Annotated

import typer

from mtlrank_cli.output import print_line
from mtlrank_cli.progress import progress

NAME = "init"
EXAMPLE = "Example: `mtlrank init shop`, or `mtlrank init kuairand --template kuairand --source PATH`"


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    template: Annotated[
        str, typer.Option(help="shop: the simulated demo; kuairand: real impressions.")
    ] = "shop",
    source: Annotated[
        Path | None, typer.Option(help="Folder with the published files (template kuairand).")
    ] = None,
) -> None:
    """Make a project: Feast repository, mtlrank.yaml and data, registered and ready to train."""
    from mtl_rank.datasets.projects import create_project

    with progress() as reporter:
        create_project(folder, template, source, reporter)
    print_line(f"project: {folder}")
    print_line(f"next: mtlrank --project {folder} train")
