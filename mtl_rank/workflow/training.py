"""A training from its configuration to a finished run, and one that goes on where it stopped."""

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from mtl_rank.config import ProjectConfig, load_config
from mtl_rank.data.cache import prepared
from mtl_rank.data.encoder import expected_layout
from mtl_rank.data.pretrained import check_pretrained, read_pretrained
from mtl_rank.errors import MtlRankError, RunError, is_full_disk
from mtl_rank.evaluation.calibrate import fit_calibration
from mtl_rank.evaluation.evaluate import check_evaluation
from mtl_rank.evaluation.of_run import (
    check_prepared,
    evaluate_test,
)
from mtl_rank.features.definitions import DEFINITIONS, fingerprint, service_definitions
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.nn.zoo import check_model
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
    find_unfinished,
    write_json,
)
from mtl_rank.training.checkpoints import TrainingInterrupted
from mtl_rank.training.fit import check_accelerator, check_logging, fit
from mtl_rank.training.precision import choose_precision, load_precision
from mtl_rank.training.validation import check_monitor
from mtl_rank.training.weighting import check_weighting
from mtl_rank.workflow.project import project_repository

_SHARED_RUN = "MTLRANK_SHARED_RUN"


def train(
    project: Path | str,
    tasks: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Train a model on the examples of a project and measure it on the test window.

    tasks: the tasks to train, None = all. settings: dotted configuration keys to override, none of another task's.
    Raises MtlRankError for anything a user can mend, before long work where it can be known by then.
    """
    project, reporter = Path(project), reporter or Silent()
    config = load_config(project, settings, tasks)
    repository = checked(config, project)
    if _SHARED_RUN in os.environ:
        _take_part(Run(project / RUNS / os.environ[_SHARED_RUN]), config, project, repository)
    with create_run(project, config) as run:
        _complete(run, config, project, repository, reporter)
    _report(run, reporter)
    return run


def checked(config: ProjectConfig, project: Path) -> FeatureRepository:
    """The feature repository of a configuration that can be trained, as far as is known before long work."""
    check_model(config.model, config.tasks)
    check_weighting(config)
    check_logging(config)
    check_accelerator(config.fit.accelerator)
    check_monitor(config.fit, {name: task.kind for name, task in config.tasks.items()})
    check_pretrained(config.model.pretrained, project)
    repository = project_repository(project, config)
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
        _take_part(shared, shared.config(), project, project_repository(project, shared.config()))
    found = find_unfinished(project, run)
    config = found.config()
    repository = project_repository(project, config)
    with found.held():
        # Another process may have continued it since it was found.
        found.refuse_finished()
        _complete(found, config, project, repository, reporter)
    _report(found, reporter)
    return found


def _complete(
    run: Run, config: ProjectConfig, project: Path, repository: FeatureRepository, reporter: Reporter
) -> None:
    """Prepare, fit, measure; each step finds what an earlier attempt left. run: held by this process."""
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
        if config.fit.devices > 1:
            # Lightning starts this command again for each device: they join this run.
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
        result = fit(config, data.encoder, data.train, data.valid, run.folder, reporter, precision, vectors)
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
    except (KeyboardInterrupt, TrainingInterrupted):
        # It may have come when all was done.
        if run.info()["status"] != FINISHED:
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
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _report(run: Run, reporter: Reporter) -> None:
    """The page about a finished run. Whatever is wrong with it must not take the training with it."""
    # Altair is imported for those alone who draw.
    from mtl_rank.evaluation.report import write_report

    reporter.stage("write the report", None)
    try:
        write_report(run)
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
