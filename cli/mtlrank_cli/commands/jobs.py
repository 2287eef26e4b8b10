"""mtlrank jobs"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlrank_cli.context import from_here
from mtlrank_cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from mtl_rank.scoring.ledger import JobState

NAME = "jobs"
EXAMPLE = "Example: `mtlrank jobs --to scores.duckdb`"


def command(
    to: Annotated[str, typer.Option(help="Where `mtlrank score` writes; from the current folder.")],
    table: Annotated[
        str | None, typer.Option(help="Table in the DuckDB file.", show_default="scores")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the scoring jobs of a table or folder, the last one at work first; also while one runs."""
    from mtl_rank.scoring.sinks import list_jobs, open_target

    found = list_jobs(open_target(from_here(to), table))
    if as_json:
        print_json([_document(job) for job in found])
        return
    if not found:
        print_line(f"no jobs yet in {to}; `mtlrank score --to {to}` makes one")
        return
    rows = [
        (
            job.job_id,
            job.state,
            job.rows,
            job.details.get("candidates"),
            f"{job.updated_at:%Y-%m-%d %H:%M:%S} UTC",
            job.details.get("as_of"),
            job.run_id,
            str(job.holder) if job.state == "running" else None,
        )
        for job in found
    ]
    header = ("job", "state", "rows", "of", "last commit", "as of", "run", "held by")
    print_table("jobs", header, rows)


def _document(job: "JobState") -> dict[str, Any]:
    details = {name: value for name, value in job.details.items() if name != "measures"}
    return {
        "job_id": job.job_id,
        "run_id": job.run_id,
        "state": job.state,
        "replace": job.replace,
        "chunks": job.chunks,
        "rows": job.rows,
        "updated_at": job.updated_at.isoformat(),
        "held_by": str(job.holder) if job.state == "running" else None,
        **details,
    }
