"""train, tune, evaluate, inspect, export, score: what the Python API and the command line call."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from mtl_rank.config import CONFIG_NAME, ProjectConfig, load_config
from mtl_rank.data.cache import prepared
from mtl_rank.data.encoder import FeatureEncoder, expected_layout
from mtl_rank.data.pretrained import check_pretrained, read_pretrained
from mtl_rank.errors import ConfigError, MtlRankError, RunError, did_you_mean, is_full_disk
from mtl_rank.evaluation.calibrate import fit_calibration
from mtl_rank.evaluation.checks import DataChecks
from mtl_rank.evaluation.compare import DRAWS, Comparison, compare_runs
from mtl_rank.evaluation.evaluate import Evaluation, check_evaluation
from mtl_rank.evaluation.inspect import Inspection
from mtl_rank.evaluation.inspect import inspect as inspect_rows
from mtl_rank.evaluation.of_run import (
    Asked,
    check_prepared,
    check_project,
    evaluate_scores,
    evaluate_stored,
    evaluate_test,
)
from mtl_rank.evaluation.scored import run_of_scores
from mtl_rank.evaluation.windows import Window, split_window
from mtl_rank.exporting.export import Exported, check_destination, real_rows
from mtl_rank.exporting.export import export as export_rows
from mtl_rank.exporting.formats import format_named
from mtl_rank.features.definitions import DEFINITIONS, fingerprint, service_definitions
from mtl_rank.features.repository import FeatureRepository, open_repository
from mtl_rank.features.schema import FeatureSchema
from mtl_rank.nn.columns import Columns
from mtl_rank.nn.summary import NetworkSummary, summarise
from mtl_rank.nn.zoo import build_network, check_model
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter, Silent
from mtl_rank.runs import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    RUNS,
    Run,
    create_run,
    find_run,
    find_unfinished,
    write_json,
)
from mtl_rank.scoring.candidates import CandidateRules
from mtl_rank.scoring.ray_engine import Cluster
from mtl_rank.scoring.score import ScoreOptions, ScoreSummary
from mtl_rank.scoring.score import score as score_candidates
from mtl_rank.scoring.sinks import open_target
from mtl_rank.scoring.sources import Pairs
from mtl_rank.training.checkpoints import TrainingInterrupted
from mtl_rank.training.fit import check_logging, fit
from mtl_rank.training.precision import choose_precision, load_precision
from mtl_rank.training.validation import check_monitor
from mtl_rank.training.weighting import check_weighting

if TYPE_CHECKING:
    from mtl_rank.tuning.front import Tuning

_SHARED_RUN = "MTLRANK_SHARED_RUN"


def inputs(project: Path | str) -> FeatureSchema:
    """What the model of a project would read."""
    config = load_config(Path(project))
    return _repository(Path(project), config).schema


def check(project: Path | str, reporter: Reporter | None = None) -> DataChecks:
    """Look at the data that a project would train on: leaks, dead views, drift, what is missing or unseen.

    The data is prepared for this, and a training that follows finds it prepared.
    """
    project, reporter = Path(project), reporter or Silent()
    config = load_config(project)
    return check_project(config, project, _repository(project, config), reporter)


def train(
    project: Path | str,
    tasks: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Train a model on the examples of a project and measure it on the test window.

    tasks: the tasks to train, None = all. settings: dotted configuration keys to override.
    Raises MtlRankError for anything a user can mend, before long work where it can be known by then.
    """
    project, reporter = Path(project), reporter or Silent()
    config = load_config(project, settings)
    if tasks is not None:
        config = config.with_tasks(tasks)
    repository = _checked(config, project)
    if _SHARED_RUN in os.environ:
        _take_part(Run(project / RUNS / os.environ[_SHARED_RUN]), config, project, repository)
    run = create_run(project, config)
    _complete(run, config, project, repository, reporter)
    _report(run, reporter)
    return run


def _checked(config: ProjectConfig, project: Path) -> FeatureRepository:
    """The feature repository of a configuration that can be trained, as far as is known before long work."""
    check_model(config.model, config.tasks)
    check_weighting(config)
    check_logging(config)
    check_monitor(config.fit, {name: task.kind for name, task in config.tasks.items()})
    check_pretrained(config.model.pretrained, project)
    repository = _repository(project, config)
    check_model(config.model, config.tasks, expected_layout(repository.schema, config.model.dim))
    check_evaluation(config, project, repository)
    return repository


def resume(project: Path | str, run: str | None = None, reporter: Reporter | None = None) -> Run:
    """Continue a run that was killed, stopped or failed, from its last checkpoint.

    The result is that of a run that was never stopped: same batches, same state, same random numbers.
    run: its name or the beginning of it, None = the latest that is not finished.
    Raises RunError when it is finished, is being trained elsewhere, or its inputs have changed.
    """
    project, reporter = Path(project), reporter or Silent()
    if _SHARED_RUN in os.environ:
        shared = Run(project / RUNS / os.environ[_SHARED_RUN])
        _take_part(shared, shared.config(), project, _repository(project, shared.config()))
    found = find_unfinished(project, run)
    config = found.config()
    _complete(found, config, project, _repository(project, config), reporter)
    _report(found, reporter)
    return found


def _complete(
    run: Run, config: ProjectConfig, project: Path, repository: FeatureRepository, reporter: Reporter
) -> None:
    """Prepare, fit, measure; each step finds what an earlier attempt left."""
    with run.held():
        try:
            run.update(status=RUNNING)
            began = time.monotonic()
            data = prepared(config, project, repository, reporter)
            ready = time.monotonic()
            before = run.info().get("prepared", data.fingerprint)
            if before != data.fingerprint:
                raise RunError(
                    f"run {run.id}: examples or features have changed since it began "
                    f"({before} is now {data.fingerprint}); train anew"
                )
            data.encoder.save(run.encoder_folder)
            # With several devices Lightning starts this command again for each: they join this run.
            os.environ[_SHARED_RUN] = run.id
            rows = {"train": data.train.rows, "valid": data.valid.rows}
            # A run that is resumed, perhaps elsewhere, keeps the arithmetic it began with.
            precision = load_precision(run.info().get("precision")) or choose_precision(
                config.fit.precision, config.fit.accelerator
            )
            definitions = service_definitions(repository)
            write_json(run.folder / DEFINITIONS, definitions)
            run.update(
                prepared=data.fingerprint,
                rows=rows,
                precision=asdict(precision),
                features=fingerprint(definitions),
            )
            checks = check_prepared(config, project, repository, data, reporter)
            checks.say(reporter)
            run.write_checks(checks.as_dict())
            vectors = read_pretrained(config.model.pretrained, project, data.encoder, reporter)
            result = fit(
                config, data.encoder, data.train, data.valid, run.folder, reporter, precision, vectors
            )
            run.calibration.unlink(missing_ok=True)
            calibration = fit_calibration(Predictor.load(run), data.valid, reporter)
            run.update(fit=asdict(result), calibration=calibration)
            run.write_metrics({"valid": result.valid})
            fitted = time.monotonic()
            evaluate_test(run, project, repository, data, reporter)
            seconds = {
                "prepare": ready - began,
                "train": fitted - ready,
                "measure": time.monotonic() - fitted,
            }
            run.update(status=FINISHED, seconds=seconds)
            shutil.rmtree(run.checkpoints, ignore_errors=True)
        except (KeyboardInterrupt, TrainingInterrupted):
            run.update(status=INTERRUPTED)
            reporter.say(f"continue with: mtlrank train --resume {run.id}")
            raise KeyboardInterrupt from None
        except BaseException as error:
            if not is_full_disk(error):
                run.update(status=FAILED)
                raise
            with suppress(OSError):
                run.update(status=FAILED)
            raise RunError(
                f"no room left to write run {run.id} ({run.folder}).\n"
                f"Free some, then continue with: mtlrank train --resume {run.id}"
            ) from error
        finally:
            os.environ.pop(_SHARED_RUN, None)


def _report(run: Run, reporter: Reporter) -> None:
    """The page about a finished run. Whatever is wrong with it must not take the training with it."""
    reporter.stage("write the report", None)
    try:
        report(run.project, run.id)
    except Exception as error:  # noqa: BLE001
        cause = error if isinstance(error, MtlRankError) else f"{type(error).__name__}: {error}"
        reporter.say(f"the report was not written: {cause}\nonce that is mended: mtlrank report {run.id}")


def _take_part(run: Run, config: ProjectConfig, project: Path, repository: FeatureRepository) -> NoReturn:
    """Be one more process of a run that another one leads: fit beside it, then end."""
    data = prepared(config, project, repository, Silent())
    precision = load_precision(run.info().get("precision"))
    vectors = read_pretrained(config.model.pretrained, project, data.encoder, Silent())
    fit(config, data.encoder, data.train, data.valid, run.folder, Silent(), precision, vectors)
    sys.exit(0)


def tune(
    project: Path | str,
    tasks: Sequence[str] | None = None,
    *,
    trials: int = 20,
    search: Sequence[str] = (),
    prefer: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> "Tuning":
    """Search the lambdas of several tasks, and show what each task gains at the cost of which.

    tasks: None = all. trials: of the study in all, those of an earlier call included. search: other keys with their
    values, such as `fit.lr=0.0005..0.01` or `model.experts=2|4|8`. prefer: `ctr=2`, what a task counts for the best
    point. settings: dotted configuration keys to override. Leaves the study in `tune/` of the project.
    Raises MtlRankError for anything a user can mend.
    """
    # Optuna and Altair are not imported for those who do not tune.
    from mtl_rank.tuning.front import parse_preferences
    from mtl_rank.tuning.space import check_space, parse_search
    from mtl_rank.tuning.tune import Request
    from mtl_rank.tuning.tune import tune as run_study

    project, reporter = Path(project), reporter or Silent()
    config = load_config(project, {**(settings or {}), "weighting.method": "manual"})
    if tasks is not None:
        config = config.with_tasks(tasks)
    names = list(config.tasks)
    space, weights = parse_search(names, search), parse_preferences(names, prefer)
    if trials < 1:
        raise ConfigError(f"--trials: at least 1, not {trials}")
    check_space(config, space)
    repository = _checked(config, project)
    return run_study(Request(config, space, settings or {}, trials, weights), project, repository, reporter)


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
    return evaluate_stored(found, project, _repository(project, found.config()), asked, reporter)


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
    repositories = [_repository(project, run.config()) for run in found]
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
            _repository(project, config),
            project,
            examples or config.examples,
            window,
            Path(folder),
            reporter,
            rows,
            shown,
        )


def export(
    project: Path | str,
    run: str | None = None,
    format: str = "onnx",
    to: Path | str | None = None,
    reporter: Reporter | None = None,
) -> Exported:
    """Write a finished run as one file that takes encoded rows and gives its predictions, the encoder beside it.

    format: `onnx` (extra `onnx`), or `torch`, a program for `torch.export.load`. to: a new folder, or one with an
    earlier export, which is replaced; None = `export-<format>` in the run.
    Raises RunError where torch cannot export the model, or the file differs from the run on rows of the project.
    """
    project, reporter = Path(project), reporter or Silent()
    format_named(format)
    found = find_run(project, run)
    folder = found.folder / f"export-{format}" if to is None else Path(to)
    check_destination(folder)
    predictor = Predictor.load(found)
    rows = real_rows(predictor, _repository(project, predictor.config), project, reporter)
    return export_rows(predictor, rows, format, folder, reporter)


def describe_model(
    project: Path | str, name: str, like: str | None = None, settings: Mapping[str, Any] | None = None
) -> NetworkSummary:
    """The layers, parameters and operations that a model of the zoo would have on the inputs and tasks of a run.

    like: a run of the project, or the folder of another project, whose latest run is taken; None = the latest.
    settings: dotted configuration keys to override.
    Raises ConfigError when the model does not fit them.
    """
    project = Path(project)
    if like is not None and (Path(like) / CONFIG_NAME).is_file():
        project, like = Path(like), None
    found = find_run(project, like)
    config = found.config({"model.name": name, **(settings or {})})
    layout = FeatureEncoder.load(found.encoder_folder).layout
    start = torch.zeros(Columns.of(config.tasks.values()).total)
    return summarise(build_network(config.model, layout, start, config.tasks))


def score(
    project: Path | str,
    run: str | None = None,
    *,
    candidates: Any = None,
    users: Any = None,
    items: Any = None,
    to: Path | str,
    table: str | None = None,
    as_of: datetime | None = None,
    replace: bool = False,
    wait: bool = True,
    duplicates: str = "keep",
    null_keys: str = "error",
    carry: Sequence[str] = (),
    rank_by: str | None = None,
    per: Sequence[str] = (),
    top_k: int | None = None,
    allow_changed_features: bool = False,
    features: str = "offline",
    push: str | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> ScoreSummary:
    """Score candidates with a finished run into a table of a DuckDB file or parquet, each exactly once.

    run: its name or the beginning of it, None = the latest. candidates: a table, or text: a parquet path, one
    SELECT for DuckDB, or `file.duckdb:table`. users, items: the same; every pair of them is a candidate. to: a
    DuckDB file, a parquet file, or a folder, as `open_target` tells them apart. The other options are those of
    `ScoreOptions` and `CandidateRules`.
    Raises MtlRankError for anything a user can mend, before any chunk is written where it can be known by then.
    """
    project, reporter = Path(project), reporter or Silent()
    options = ScoreOptions(
        as_of=as_of,
        replace=replace,
        wait=wait,
        rules=CandidateRules(duplicates, null_keys),
        carry=tuple(carry),
        rank_by=rank_by,
        per=tuple(per),
        top_k=top_k,
        allow_changed_features=allow_changed_features,
        online=_choice("--features", features, ("offline", "online")) == "online",
        push=push,
        cluster=_cluster(engine, address, workers),
    )
    rows = _rows_to_score(candidates, users, items)
    found = find_run(project, run)
    predictor = Predictor.load(found)
    repository = _repository(project, predictor.config)
    with tempfile.TemporaryDirectory(prefix="mtlrank-") as folder:
        return score_candidates(
            predictor,
            repository,
            project,
            rows,
            open_target(to, table),
            options,
            Path(folder),
            reporter,
        )


def _cluster(engine: str, address: str | None, workers: int | None) -> Cluster | None:
    if _choice("--engine", engine, ("local", "ray")) == "ray":
        return Cluster(address, workers)
    if address is not None or workers is not None:
        raise ConfigError(f"{'--address' if address is not None else '--workers'} needs --engine ray")
    return None


def _choice(option: str, given: str, choices: tuple[str, ...]) -> str:
    if given not in choices:
        raise ConfigError(f"{option} {given}: {did_you_mean(given, choices)}")
    return given


def _rows_to_score(candidates: Any, users: Any, items: Any) -> Any:
    if candidates is not None and users is None and items is None:
        return candidates
    if candidates is None and users is not None and items is not None:
        return Pairs(users, items)
    raise ConfigError("score needs --candidates, or both --users and --items")


def _repository(project: Path, config: ProjectConfig) -> FeatureRepository:
    return open_repository((project / config.feature_repo).resolve(), config.feature_service, config.context)
