"""mtlrank export"""

from pathlib import Path
from typing import Annotated

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_line
from mtlrank_cli.progress import progress

NAME = "export"
EXAMPLE = "Example: `mtlrank export --format onnx --to exported`"


def command(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="A run, or the beginning of its name. Default: the latest.")
    ] = None,
    format: Annotated[str, typer.Option(help="onnx, or torch: a program for torch.export.load.")] = "onnx",
    to: Annotated[Path | None, typer.Option(help="A new folder. Default: export-FORMAT in the run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a run as one file from encoded rows to calibrated predictions, checked against the run."""
    folder = project_folder(context)
    from mtl_rank import export

    with progress() as reporter:
        found = export(folder, run, format, None if to is None else to.resolve(), reporter)
    if as_json:
        print_json(
            {
                "folder": str(found.folder),
                "file": str(found.file),
                "inputs": found.inputs,
                "outputs": found.outputs,
                "checked_rows": found.rows,
                "largest_difference": found.difference,
                "largest_difference_as_scored": found.as_scored,
            }
        )
        return
    print_line(f"{found.file}: {', '.join(found.outputs)}")
    print_line(f"largest difference from the run on {found.rows:,} rows: {found.difference:.1e}")
    if found.as_scored > found.difference:
        print_line(f"from its scores, in the precision it was trained in: {found.as_scored:.1e}")
    print_line(f"encoder: {found.folder / 'encoder'}")
