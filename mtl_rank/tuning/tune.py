"""tune: train at many lambdas, and show what each task gains at the cost of which."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_rank.config import ProjectConfig
from mtl_rank.data.cache import Prepared, prepared
from mtl_rank.data.pretrained import read_pretrained
from mtl_rank.errors import ConfigError, DataError, MtlRankError, RunError
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.progress import Reporter
from mtl_rank.runs import write_json
from mtl_rank.training.checkpoints import TrainingInterrupted
from mtl_rank.training.fit import fit
from mtl_rank.training.validation import check_measurable
from mtl_rank.tuning.front import Point, Tuning, best_for, loss_metric
from mtl_rank.tuning.journal import Study, locked
from mtl_rank.tuning.page import write_page
from mtl_rank.tuning.space import Space, command, configured

TUNE = "tune"
_RESULT = "result.json"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    overrides: dotted keys that were set, for the command that trains a point. trials: of the study in all.
    """

    config: ProjectConfig
    space: Space
    overrides: Mapping[str, Any]
    trials: int
    prefer: Mapping[str, float]


class Trainer:
    """Trains points in folders of their own; what only costs room is gone afterwards."""

    def __init__(self, project: Path, repository: FeatureRepository, reporter: Reporter) -> None:
        self._project = project
        self._repository = repository
        self._reporter = reporter
        self._data: dict[int | str, Prepared] = {}

    def data(self, config: ProjectConfig) -> Prepared:
        """Of all that is searched, only the width of the embeddings changes what is prepared."""
        if config.model.dim not in self._data:
            self._data[config.model.dim] = prepared(config, self._project, self._repository, self._reporter)
        return self._data[config.model.dim]

    def train(self, config: ProjectConfig, folder: Path) -> dict[str, float]:
        """The validation metrics of the best epoch; continues from a checkpoint if there is one."""
        data = self.data(config)
        vectors = read_pretrained(config.model.pretrained, self._project, data.encoder, self._reporter)
        result = fit(config, data.encoder, data.train, data.valid, folder, self._reporter, vectors=vectors)
        return result.valid


def tune(request: Request, project: Path, repository: FeatureRepository, reporter: Reporter) -> Tuning:
    """Train until the study has its trials, beside other processes that do the same, and say what it found.

    A study is named after all that decides its numbers: the same request goes on where an earlier one was killed.
    Raises MtlRankError for what can be mended, KeyboardInterrupt on Ctrl-C.
    """
    config = request.config
    if config.fit.devices > 1:
        raise ConfigError("fit.devices: tune trains on one; start it several times instead")
    trainer = Trainer(project, repository, reporter)
    data = trainer.data(config)
    for task in config.tasks:
        check_measurable(loss_metric(config, task), data.valid.arrays.labels, data.encoder.targets)
    folder = project / TUNE / _name(request)
    folder.mkdir(parents=True, exist_ok=True)
    _same_data(folder, data.fingerprint)
    study = Study(folder, request.space, len(config.tasks), config.fit.seed)
    study.start_with(request.space.starts(config.lambdas()))
    try:
        _train_alone(request, folder, trainer, reporter, wait=False)
        while _train_trial(request, study, trainer, reporter):
            pass
        alone = _train_alone(request, folder, trainer, reporter, wait=True)
    except (KeyboardInterrupt, TrainingInterrupted):
        reporter.say("the same command continues the study")
        raise KeyboardInterrupt from None
    if study.running():
        reporter.say(f"{study.running()} trials are still being trained by other processes")
    with locked(folder / "page.lock"):
        # One process after another: otherwise one that knows less may be the last to write.
        found = _summary(request, study, folder.name, alone)
        write_json(folder / _RESULT, found.as_dict())
        write_page(folder / "front.html", found)
    return found


def _train_trial(request: Request, study: Study, trainer: Trainer, reporter: Reporter) -> bool:
    """Train one trial; False when there is none to train."""
    space, config = request.space, request.config
    with study.claim(request.trials) as claim:
        if claim is None:
            return False
        lambdas = space.lambdas(claim.values)
        point = {**{task: f"{value:g}" for task, value in lambdas.items()}, **space.settings(claim.values)}
        shown = " ".join(f"{key}={value}" for key, value in point.items())
        reporter.say(f"trial {claim.number}{' goes on' if claim.again else ''}: {shown}")
        try:
            metrics = trainer.train(configured(config, lambdas, space.settings(claim.values)), claim.folder)
        except MtlRankError as error:
            reporter.say(f"trial {claim.number} failed: {error}")
            study.failed(claim, str(error))
        else:
            study.succeeded(claim, [metrics[loss_metric(config, task)] for task in config.tasks], metrics)
        _tidy(claim.folder)
    return True


def _train_alone(
    request: Request, folder: Path, trainer: Trainer, reporter: Reporter, wait: bool
) -> dict[str, float]:
    """Per task the loss of the same network trained on that task alone: its lambda 1, the others 0.

    It has the hyper-parameters of the project, whatever else is searched. Trained once; without `wait`, those that
    another process is at are left out.
    """
    config, found = request.config, {}
    for task in config.tasks:
        own = folder / "alone" / task
        metric = loss_metric(config, task)
        with locked(own / "lock", wait) as held:
            if not held:
                continue
            if not (own / _RESULT).exists():
                reporter.say(f"{task} alone")
                metrics = trainer.train(_alone(config, task, metric), own)
                write_json(own / _RESULT, metrics)
            _tidy(own)
            found[task] = json.loads((own / _RESULT).read_text(encoding="utf-8"))[metric]
    return found


def _alone(config: ProjectConfig, task: str, metric: str) -> ProjectConfig:
    """The configuration of one task alone, stopped by its own metric.

    Nothing of it may lean on a task whose lambda is 0: under esmm the loss would be that of a product with a parent
    that learns nothing, under inverse_propensity the weights those of a parent that knows nothing. A schedule of
    lambdas is a matter of several tasks.
    """
    plain = {"fit.monitor": metric, "weighting.schedule": "{}"}
    if config.model.name == "esmm":
        plain["model.name"] = "dnn"
    if "esmm" in (config.model.name, config.model.heads):
        plain["model.heads"] = "towers"
    if config.tasks[task].inverse_propensity is not None:
        plain[f"tasks.{task}.inverse_propensity"] = "null"
    return configured(config, {other: float(other == task) for other in config.tasks}, plain)


def _summary(request: Request, study: Study, name: str, alone: Mapping[str, float]) -> Tuning:
    config, space = request.config, request.space
    complete, front = study.with_front()
    points = []
    for trial in complete:
        lambdas, settings = space.lambdas(trial.params), space.settings(trial.params)
        metrics = trial.user_attrs["metrics"]
        aucs = {task: metrics.get(f"valid/{task}/auc") for task in config.tasks}
        points.append(
            Point(
                trial=trial.number,
                lambdas=lambdas,
                settings=settings,
                losses={task: metrics[loss_metric(config, task)] for task in config.tasks},
                auc={task: value for task, value in aucs.items() if value is not None},
                on_front=trial.number in front,
                command=command(list(config.tasks), request.overrides, lambdas, settings),
            )
        )
    failed = study.failures()
    if not points:
        reasons = list(failed.values())
        raise DataError(f"tune: no trial has a result; {reasons[-1] if reasons else 'none has ended yet'}")
    best = best_for(points, alone, request.prefer).trial
    return Tuning(name, tuple(points), failed, alone, request.prefer, best)


def _name(request: Request) -> str:
    """Tasks, and a digest of what decides the numbers."""
    searched = {name: repr(values) for name, values in request.space.distributions().items()}
    facts = json.dumps([request.config.model_dump(mode="json"), searched], sort_keys=True)
    return f"{'-'.join(request.config.tasks)}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"


def _same_data(folder: Path, fingerprint: str) -> None:
    """Raises RunError when the study began on other data: its points could not be compared."""
    with locked(folder / "lock"):
        path = folder / "study.json"
        if not path.exists():
            write_json(path, {"prepared": fingerprint})
        before = json.loads(path.read_text(encoding="utf-8"))["prepared"]
    if before != fingerprint:
        raise RunError(
            f"study {folder.name}: examples or features have changed since it began ({before} is now "
            f"{fingerprint}); remove {folder} to begin anew"
        )


def _tidy(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / "model.safetensors").unlink(missing_ok=True)
