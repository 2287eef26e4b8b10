"""mtlrank features"""

from typing import Annotated

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_table

NAME = "features"
EXAMPLE = "Example: `mtlrank features`"


def command(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what the model would read: every input, its role and how it is encoded."""
    from mtl_rank import inputs

    schema = inputs(project_folder(context))
    if as_json:
        print_json(schema.model_dump(mode="json"))
        return
    rows = []
    for spec in schema.inputs:
        options = spec.options
        if spec.role == "dense":
            encoding = f"{options.transform}, {options.bins} bins" if options.bins else options.transform
        elif options.shares:
            encoding = f"ids of {options.shares}"
        elif options.vocab == "hashed":
            encoding = f"hashed into {options.buckets:,}"
        else:
            encoding = f"learned, min count {options.min_count}"
        if spec.role in ("sequence", "bag"):
            encoding += f", last {options.max_len}"
        rows.append((spec.name, spec.role, encoding, spec.origin))
    print_table(
        f"{schema.service}: {len(schema.inputs)} inputs", ("input", "role", "encoding", "defined in"), rows
    )
