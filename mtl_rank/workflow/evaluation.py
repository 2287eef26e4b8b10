"""What finished runs are worth and what is inside them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mtl_rank.config import CONFIG_NAME, load_config
from mtl_rank.data.encoder import FeatureEncoder
from mtl_rank.errors import ConfigError
from mtl_rank.evaluation.compare import DRAWS, Comparison, compare_runs
from mtl_rank.evaluation.evaluate import Evaluation
from mtl_rank.evaluation.inspect import Inspection
from mtl_rank.evaluation.inspect import inspect as inspect_rows
from mtl_rank.evaluation.of_run import Asked, evaluate_scores, evaluate_stored
from mtl_rank.evaluation.scored import run_of_scores
from mtl_rank.evaluation.windows import Window, split_window
from mtl_rank.nn.columns import Columns
from mtl_rank.nn.summary import NetworkSummary, summarise
from mtl_rank.nn.zoo import build_network
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter, Silent
from mtl_rank.runs import find_run
from mtl_rank.workflow.project import project_repository


def evaluate(
    project: Path | str,
    run: str | None = None,
    split: str | None = None,
    examples: str | None = None,
    reporter: Reporter | None = None,
    *,
    scores: str | None = None,
    by: Sequence[str] = (),
    draws: int | None = None,
    baselines: Sequence[str] = (),
) -> Evaluation:
    """Measure a finished run on a split of its project, on other labelled rows, or by the scores it wrote.

    run: its name or the beginning of it, None = the latest, or the one that wrote `scores`.
    split: train, valid or test; None = test, or with `scores` every row of `examples`.
    examples: labelled rows, a parquet path or SQL. scores: a table that was scored before, joined to the labels
    by its keys: each row gets the newest score at or before its time.
    by: columns whose values are measured one by one, beside those of `evaluation.by`.
    draws: of users, for the intervals; None = `evaluation.draws`. baselines: simpler models to train beside it.
    """
    project, reporter = Path(project), reporter or Silent()
    asked = Asked(split, examples, by, draws, baselines)
    if scores is not None:
        found = find_run(project, run if run is not None else run_of_scores(scores, project))
        return evaluate_scores(found, project, scores, asked, reporter)
    found = find_run(project, run)
    return evaluate_stored(found, project, project_repository(project, found.config()), asked, reporter)


def report(project: Path | str, run: str | None = None) -> Path:
    """Write the report of a finished run anew, from what was measured so far; returns the path of the page.

    run: its name or the beginning of it, None = the latest.
    """
    # Altair is imported for those alone who draw.
    from mtl_rank.evaluation.report import write_report

    return write_report(find_run(Path(project), run))


def compare(
    project: Path | str,
    runs: Sequence[str],
    split: str = "test",
    examples: str | None = None,
    draws: int = DRAWS,
    reporter: Reporter | None = None,
) -> Comparison:
    """Measure runs on the same rows and test their differences from the first; leaves compare.html in its folder.

    runs: their names or the beginnings of them. split: of the first run's project; or other labelled `examples`.
    draws: of users, for intervals and p-values.
    """
    from mtl_rank.evaluation.report import write_comparison

    project, reporter = Path(project), reporter or Silent()
    found = [find_run(project, name) for name in runs]
    if not found:
        raise ConfigError("compare: name two or more different runs")
    window = split_window(found[0].config(), split) if examples is None else Window("examples")
    repositories = [project_repository(project, run.config()) for run in found]
    with tempfile.TemporaryDirectory(dir=found[0].folder) as folder:
        result = compare_runs(found, repositories, project, window, examples, draws, Path(folder), reporter)
    write_comparison(found[0], result)
    return result


def inspect(
    project: Path | str,
    run: str | None = None,
    split: str = "valid",
    examples: str | None = None,
    rows: int = 20_000,
    shown: int = 3,
    reporter: Reporter | None = None,
) -> Inspection:
    """Look inside a finished run: use of experts, importance of inputs, attention over histories.

    rows: at most so many of the split, drawn evenly. shown: of how many of them the attention is told.
    """
    project, reporter = Path(project), reporter or Silent()
    found = find_run(project, run)
    predictor = Predictor.load(found)
    config = predictor.config
    window = split_window(config, split) if examples is None else Window("examples")
    with tempfile.TemporaryDirectory(dir=found.folder) as folder:
        return inspect_rows(
            predictor,
            project_repository(project, config),
            project,
            examples or config.examples,
            window,
            Path(folder),
            reporter,
            rows,
            shown,
        )


def describe_model(
    project: Path | str, name: str, like: str | None = None, settings: Mapping[str, Any] | None = None
) -> NetworkSummary:
    """The layers, parameters and operations that a model of the zoo would have on the inputs and tasks of a run.

    like: a run of the project: its inputs, tasks and settings; or the folder of another project, None = this one: the
    inputs and tasks of its latest run, with the `model:` section of its mtlrank.yaml.
    settings: dotted configuration keys to override.
    Raises ConfigError when the model does not fit them.
    """
    project = Path(project)
    if like is not None and (Path(like) / CONFIG_NAME).is_file():
        project, like = Path(like), None
    found = find_run(project, like)
    chosen = {"model.name": name, **(settings or {})}
    config = found.config(chosen)
    if like is None:
        config = config.model_copy(update={"model": load_config(project, chosen).model})
    layout = replace(FeatureEncoder.load(found.encoder_folder), default_dim=config.model.dim).layout
    start = torch.zeros(Columns.of(config.tasks.values()).total)
    return summarise(build_network(config.model, layout, start, config.tasks))
