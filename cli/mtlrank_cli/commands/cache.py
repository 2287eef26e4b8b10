"""mtlrank cache"""

from typing import Annotated

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_line, print_table

NAME = "cache"
EXAMPLE = "Example: `mtlrank cache --clear`"


def command(
    context: typer.Context,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all prepared data.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the prepared data that a second training on the same inputs reuses, or clear it."""
    folder = project_folder(context)
    from dataclasses import asdict

    from mtl_rank.data.cache import clear_cache, list_cache

    entries = list_cache(folder)
    freed = clear_cache(folder) if clear else 0
    if as_json:
        print_json({"entries": [asdict(entry) for entry in entries], "freed_bytes": freed})
    elif clear:
        print_line(f"removed {len(entries)} prepared data sets, {freed / 1e6:,.1f} MB")
    elif not entries:
        print_line("no prepared data; `mtlrank train` makes it")
    else:
        print_table(
            "prepared data",
            ("fingerprint", "train rows", "valid rows", "MB", "last used"),
            (
                (
                    e.fingerprint,
                    e.rows["train"],
                    e.rows["valid"],
                    round(e.size / 1e6, 1),
                    f"{e.used_at:%Y-%m-%d %H:%M}",
                )
                for e in entries
            ),
        )
