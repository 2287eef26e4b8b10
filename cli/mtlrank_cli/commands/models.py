"""mtlrank models"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtl_rank.errors import ConfigError
from mtlrank_cli.context import CONFIG_NAME, project_folder
from mtlrank_cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from mtl_rank.nn.summary import NetworkSummary

NAME = "models"
EXAMPLE = "Example: `mtlrank models ple --like . --set model.levels=2`"


def command(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A model of the list. Default: list all.")] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="Build NAME for the inputs and tasks of this run, or of a project's latest run, and show its "
            "layers, parameters and operations."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="With --like: any key of mtlrank.yaml, such as model.experts=8; repeat."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the models, or show what one would be made of."""
    if settings and like is None:
        raise ConfigError(
            "models --set: only with --like, such as `mtlrank models ple --like . --set model.levels=2`"
        )
    if name is None:
        if like is not None:
            raise ConfigError("models --like: name a model, such as `mtlrank models mmoe --like .`")
        _list(as_json)
        return
    if like is None:
        _describe(name, as_json)
        return
    from mtl_rank import describe_model
    from mtl_rank.config import parse_settings

    is_project = (Path(like) / CONFIG_NAME).is_file()
    folder = Path(like) if is_project else project_folder(context)
    summary = describe_model(folder, name, None if is_project else like, parse_settings(settings or []))
    if as_json:
        print_json({"model": name, **asdict(summary)})
    else:
        _print_summary(name, summary)


def _list(as_json: bool) -> None:
    from mtl_rank.nn.branches import BRANCHES
    from mtl_rank.nn.heads import HEADS
    from mtl_rank.nn.plugins import load_plugins
    from mtl_rank.nn.sequences import NO_SEQUENCES, SEQUENCES
    from mtl_rank.nn.zoo import ZOO

    load_plugins()
    if as_json:
        print_json({name: asdict(entry) for name, entry in ZOO.items()})
        return
    print_table(
        "models, for --model or model.name",
        ("model", "what it is", "paper", "needs"),
        ((name, e.summary, e.paper or None, e.needs or None) for name, e in ZOO.items()),
    )
    print_line("")
    print_table(
        "parts that go with any of them",
        ("key", "values"),
        (
            ("model.branches", ", ".join(BRANCHES)),
            ("model.sequences", ", ".join([*SEQUENCES, NO_SEQUENCES])),
            ("model.heads", ", ".join(HEADS)),
        ),
    )


def _describe(name: str, as_json: bool) -> None:
    from mtl_rank.config import Model
    from mtl_rank.nn.zoo import ZOO, parts_of

    parts, entry = parts_of(Model(name=name)), ZOO[name]
    if as_json:
        print_json({"model": name, **asdict(entry), **asdict(parts)})
        return
    print_line(f"{name}: {entry.summary}{f' ({entry.paper})' if entry.paper else ''}")
    print_line(f"trunk {parts.trunk}, heads {parts.heads}, sequences {parts.sequences}")
    if parts.branches:
        print_line(f"branches {', '.join(parts.branches)}")
    if entry.needs:
        print_line(f"needs {entry.needs}")
    print_line(f"`mtlrank models {name} --like RUN_OR_PROJECT` shows its layers and its cost")


def _print_summary(name: str, summary: "NetworkSummary") -> None:
    print_table(
        name,
        ("layer", "kind", "shapes", "parameters", "of a table"),
        (
            (
                layer.name,
                layer.kind,
                " ".join("x".join(map(str, shape)) for shape in layer.shapes),
                layer.parameters,
                "yes" if layer.table else "",
            )
            for layer in summary.layers
        ),
    )
    print_line(
        f"{summary.parameters:,} parameters, {summary.table_parameters:,} in tables; "
        f"{summary.flops:,} operations per row (matrix products)"
    )
