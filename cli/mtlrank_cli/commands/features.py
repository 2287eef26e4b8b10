"""mtlrank features"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_line, print_table
from mtlrank_cli.progress import progress

if TYPE_CHECKING:
    from mtl_rank.evaluation.checks import DataChecks
    from mtl_rank.features.ages import Matches

NAME = "features"
EXAMPLE = "Example: `mtlrank features --check`"

_HOUR = 3600.0


def command(
    context: typer.Context,
    check: Annotated[
        bool,
        typer.Option("--check", help="Prepare the training data and look for leaks, dead views and drift."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what the model would read: every input, its role and how it is encoded; or check the data behind it."""
    folder = project_folder(context)
    if check:
        _check(folder, as_json)
        return
    from mtl_rank import inputs

    schema = inputs(folder)
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


def _check(folder: Path, as_json: bool) -> None:
    from mtl_rank import check

    with progress() as reporter:
        found = check(folder, reporter)
    if as_json:
        print_json(found.as_dict())
        return
    _print_views(found)
    _print_inputs(found)
    for flag in found.flags:
        print_line(f"{flag.kind.upper() if flag.loud else flag.kind}: {flag.text}")
    loud = sum(flag.loud for flag in found.flags)
    rows = ", ".join(f"{count:,} {window}" for window, count in found.rows.items())
    print_line(f"{rows} rows: {loud} problems, {len(found.flags) - loud} notes")


def _print_views(found: "DataChecks") -> None:
    with_ages = any(view.matches for view in found.views)
    print_table(
        "feature views: share of rows with a value"
        + (", age of the matched row in hours" if with_ages else ""),
        ("view", "train", "valid", *(("matched", "median age", "oldest tenth") if with_ages else ())),
        (
            (
                *(view.name, view.coverage["train"], view.coverage["valid"]),
                *(_ages(view.matches) if with_ages else ()),
            )
            for view in found.views
        ),
    )


def _ages(matches: "Matches | None") -> tuple[float | None, ...]:
    if matches is None:
        return None, None, None
    ages = (matches.median_age, matches.tenth_age)
    return matches.matched, *(None if age is None else age / _HOUR for age in ages)


def _print_inputs(found: "DataChecks") -> None:
    tasks = list(dict.fromkeys(task for one in found.inputs for task in one.alone))
    print_table(
        "inputs: shares of rows, PSI from train to valid, and what each tells alone (AUC, |Spearman|)",
        ("input", "role", "values", "missing", "unseen in valid", "PSI", *tasks),
        (
            (
                *(one.name, one.role, one.vocabulary, one.missing["train"], one.unseen["valid"], one.psi),
                *(one.alone.get(task) for task in tasks),
            )
            for one in found.inputs
        ),
    )
