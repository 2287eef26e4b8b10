"""mtlrank score"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mtl_rank.errors import ConfigError
from mtlrank_cli.context import from_here, project_folder
from mtlrank_cli.options import split_names
from mtlrank_cli.output import print_json, print_line, print_table
from mtlrank_cli.progress import progress

if TYPE_CHECKING:
    from mtl_rank.scoring.score import ScoreSummary

NAME = "score"
EXAMPLE = "Example: `mtlrank score --candidates data/candidates.parquet --to scores.duckdb`"


def command(
    context: typer.Context,
    to: Annotated[
        str,
        typer.Option(
            help="The DuckDB file for the scores, made if it does not exist; or name.parquet; or a folder for files "
            "by day, ending with a slash. From the current folder."
        ),
    ],
    run: Annotated[
        str | None, typer.Argument(help="A run, or the beginning of its name. Default: the latest.")
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            help="A parquet path, folder or glob, one SELECT for DuckDB, or file.duckdb:table; relative paths "
            "start at the project."
        ),
    ] = None,
    users: Annotated[
        str | None, typer.Option(help="With --items, instead of --candidates: every user with every item.")
    ] = None,
    items: Annotated[str | None, typer.Option(help="As --candidates; see --users.")] = None,
    table: Annotated[
        str | None, typer.Option(help="Table in the DuckDB file.", show_default="scores")
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            help="Time that features are read at, ISO or `now`. Default: the candidates' own event_timestamp."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the new scores in the place of all that the table holds.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Exit with 2 when the same job is running elsewhere.")
    ] = False,
    duplicates: Annotated[
        str,
        typer.Option(help="Candidates with the keys and time of an earlier one: keep, drop or error."),
    ] = "keep",
    null_keys: Annotated[
        str, typer.Option(help="Candidates without one of the join keys: error, drop or keep.")
    ] = "error",
    carry: Annotated[
        str | None, typer.Option(help="Columns of the candidates to copy to the scores: name,name.")
    ] = None,
    rank_by: Annotated[
        str | None,
        typer.Option(
            help="Order the candidates of each user by an expression over outputs and carried columns, such as "
            "`ctr * cvr ** 0.5`; adds the columns rank_by and rank."
        ),
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(help="Rank per these columns. Default: the project's user_key, or the first join key."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", "--top", help="Keep only the best of each; needs --rank-by.")
    ] = None,
    allow_changed_features: Annotated[
        bool,
        typer.Option(
            "--allow-changed-features",
            help="Score although the feature service is not as it was when the run was trained.",
        ),
    ] = False,
    again: Annotated[
        str | None,
        typer.Option(
            help="Any word, such as a date: another job of the same candidates, to score them anew after features "
            "were corrected."
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="offline: as known at each candidate's time. online: the latest of the online store."
        ),
    ] = "offline",
    push: Annotated[
        str | None,
        typer.Option(help="A feature view that the scores are written back to, offline and online."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray: chunks in tasks of Ray (pip install 'mtl-rank[ray]').")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="With --engine ray: a cluster.", show_default="this machine")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="With --engine ray: tasks at a time.", show_default="one per core")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score candidates into a DuckDB table or parquet, each exactly once; run again, an unfinished job continues."""
    time = _time(as_of)
    folder = project_folder(context)
    from mtl_rank import score

    with progress() as reporter:
        summary = score(
            folder,
            run,
            candidates=candidates,
            users=users,
            items=items,
            to=from_here(to),
            table=table,
            as_of=time,
            replace=replace,
            wait=not no_wait,
            duplicates=duplicates,
            null_keys=null_keys,
            carry=split_names(carry),
            rank_by=rank_by,
            per=split_names(per),
            top_k=top_k,
            allow_changed_features=allow_changed_features,
            again=again,
            features=features,
            push=push,
            engine=engine,
            address=address,
            workers=workers,
            reporter=reporter,
        )
    if as_json:
        print_json(summary.as_dict())
        return
    if summary.already_finished:
        print_line(f"job {summary.job_id} was finished before: {summary.rows:,} rows, nothing changed")
    else:
        rate = summary.written / summary.seconds
        print_line(
            f"{summary.written:,} rows in {summary.seconds:.1f} s ({rate:,.0f} rows/s), run {summary.run_id}"
        )
        for line in _remarks(summary):
            print_line(line)
    print_line(f"scores: {f'table {summary.table!r} in ' if summary.table else ''}{summary.path}")
    if profile:
        rows = [
            (stage, f"{busy:.2f}", f"{busy / summary.seconds:.0%}") for stage, busy in summary.profile.items()
        ]
        print_table("stages, at work at the same time", ("stage", "busy seconds", "of the job"), rows)


def _remarks(summary: "ScoreSummary") -> Iterator[str]:
    """What a person should know of a job beyond its numbers of rows."""
    if summary.kept < summary.rows:
        yield f"kept: {summary.kept:,} rows, the best of each"
    if summary.dropped:
        yield f"left out: {summary.dropped:,} candidates"
    gaps = [f"{view} {rate:.1%}" for view, rate in summary.missing.items() if rate]
    if gaps:
        yield f"rows without features of a view: {', '.join(gaps)}"
    if summary.compared_with:
        drift = ", ".join(f"{task} {value:.3f}" for task, value in summary.psi.items() if value is not None)
        yield f"drift of the scores since job {summary.compared_with} (PSI): {drift}"


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    if text == "now":
        return datetime.now(UTC)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--as-of {text}: write a time such as 2026-03-31T00:00, or now") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
