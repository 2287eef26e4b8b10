"""mtlrank train"""

from typing import Annotated, Any

import typer

from mtl_rank.errors import ConfigError
from mtlrank_cli.commands.evaluate import print_evaluation
from mtlrank_cli.context import project_folder
from mtlrank_cli.options import split_names
from mtlrank_cli.output import print_json, print_line
from mtlrank_cli.progress import progress

NAME = "train"
EXAMPLE = "Example: `mtlrank train --tasks ctr,cvr --model mmoe --weighting manual --lambda cvr=0.5`"


def command(
    context: typer.Context,
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated tasks. Default: all of mtlrank.yaml.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Settings by name, such as best; before mtlrank.yaml, behind the other options."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A name of `mtlrank models`.")] = None,
    weighting: Annotated[
        str | None,
        typer.Option(
            help="manual, loss_scale, uncertainty, dwa, pcgrad, ...: how the tasks' losses become one."
        ),
    ] = None,
    lambdas: Annotated[
        list[str] | None, typer.Option("--lambda", help="task=factor; repeat per task.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any key of mtlrank.yaml, such as model.experts=8; repeat."),
    ] = None,
    log_gradients: Annotated[
        bool,
        typer.Option("--log-gradients", help="Norms and cosines of the tasks' gradients into history.csv."),
    ] = False,
    resume_run: Annotated[
        str | None,
        typer.Option(
            "--resume", help="Continue this run from its last checkpoint; `latest` = the last unfinished."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a model on the project's examples and measure it on the test window."""
    overrides = _overrides(preset, model, weighting, lambdas or [], settings or [])
    if log_gradients:
        overrides["weighting.log_gradients"] = True
    if resume_run is not None and (overrides or tasks is not None):
        raise ConfigError("--resume continues a run as it was configured; leave out the other options")
    folder = project_folder(context)
    from mtl_rank import resume, train

    with progress() as reporter:
        if resume_run is not None:
            run = resume(folder, None if resume_run == "latest" else resume_run, reporter)
        else:
            run = train(folder, split_names(tasks) if tasks is not None else None, overrides, reporter)
    metrics = run.metrics()
    if as_json:
        print_json({"run": run.id, "folder": str(run.folder), **run.info(), "metrics": metrics})
        return
    if "test" in metrics:
        print_evaluation(metrics["test"], metrics.get("baselines", {}).get("test"))
    print_line(f"run: {run.folder}")
    if run.report.exists():
        print_line(f"report: {run.report}")


def _overrides(
    preset: str | None, model: str | None, weighting: str | None, lambdas: list[str], settings: list[str]
) -> dict[str, Any]:
    from mtl_rank.config import parse_settings
    from mtl_rank.config import preset as settings_of

    overrides = {**(settings_of(preset) if preset is not None else {}), **parse_settings(settings)}
    if model is not None:
        overrides["model.name"] = model
    if weighting is not None:
        overrides["weighting.method"] = weighting
    for pair in lambdas:
        task, equals, factor = pair.partition("=")
        try:
            overrides[f"weighting.lambdas.{task.strip()}"] = float(factor)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--lambda {pair}: write task=factor, such as --lambda cvr=0.5")
    return overrides
