"""mtlrank simulate"""

from pathlib import Path
from typing import Annotated

import typer

from mtlrank_cli.output import print_json, print_line
from mtlrank_cli.progress import progress

NAME = "simulate"
EXAMPLE = "Example: `mtlrank simulate --rows 500000 --seed 7 --out data`"


def command(
    rows: Annotated[int, typer.Option(help="Impressions to simulate.")] = 50_000,
    seed: Annotated[int, typer.Option(help="The same rows and seed give the same files.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder for the parquet files.")] = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Simulate a month of the demo shop: impressions, feature sources and the true probabilities."""
    from dataclasses import asdict

    from mtl_rank.datasets.shop import simulate_shop

    with progress() as reporter:
        reporter.stage("simulate days", None)
        summary = simulate_shop(out, rows, seed, lambda done, _: reporter.advance(done))
    if as_json:
        print_json(asdict(summary))
    else:
        print_line(
            f"{summary.rows:,} impressions of {summary.users:,} users and {summary.items:,} items in {out}"
        )
