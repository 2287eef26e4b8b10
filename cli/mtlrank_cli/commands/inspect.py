"""mtlrank inspect"""

from typing import TYPE_CHECKING, Annotated

import typer

from mtlrank_cli.context import project_folder
from mtlrank_cli.output import print_json, print_line, print_table
from mtlrank_cli.progress import progress

if TYPE_CHECKING:
    from mtl_rank.evaluation.inspect import Inspection

NAME = "inspect"
EXAMPLE = "Example: `mtlrank inspect --split valid --rows 20000`"


def command(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="A run, or the beginning of its name. Default: the latest.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "valid",
    examples: Annotated[
        str | None, typer.Option(help="Other labelled rows instead of a split: a parquet path or SQL.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Look at no more rows than this, drawn evenly.")] = 20_000,
    shown: Annotated[int, typer.Option(min=0, help="Tell the attention of so many rows.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look inside a run: experts each task uses, importance of inputs, attention over histories."""
    folder = project_folder(context)
    from mtl_rank import inspect

    with progress() as reporter:
        found = inspect(folder, run, split, examples, rows, shown, reporter)
    if as_json:
        print_json(found.as_dict())
    else:
        _print(found)


def _print(found: "Inspection") -> None:
    if found.gates:
        experts = max(len(use.utilisation) for use in found.gates)
        print_table(
            f"{found.window}: mean weight of each expert, {found.rows:,} rows",
            ("task", "level", "entropy", *(f"{k}" for k in range(1, experts + 1))),
            (
                (
                    use.task,
                    use.level,
                    use.entropy,
                    *use.utilisation,
                    *[None] * (experts - len(use.utilisation)),
                )
                for use in found.gates
            ),
        )
    tasks = list(dict.fromkeys(one.task for one in found.importance))
    by_input: dict[str, dict[str, float | None]] = {}
    for one in found.importance:
        by_input.setdefault(one.input, {})[one.task] = one.loss_rise
    most = sorted(by_input.items(), key=lambda item: -sum(value or 0.0 for value in item[1].values()))
    print_table(
        f"{found.window}: rise of the normalised loss when an input's values are dealt out anew",
        ("input", *tasks),
        ((name, *(values.get(task) for task in tasks)) for name, values in most),
    )
    for attention in found.attention:
        keys = ", ".join(f"{key} {value}" for key, value in attention.row.items())
        looked_at = "  ".join(
            f"{value} {weight:.3f}" for value, weight in zip(attention.values, attention.weights, strict=True)
        )
        print_line(f"{keys}: {attention.sequence}: {looked_at or 'nothing there'}")
