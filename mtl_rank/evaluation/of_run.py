"""Evaluates a run as it lies on disk, and keeps the result in it."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtl_rank.config import ProjectConfig
from mtl_rank.config.measuring import FEWEST_DRAWS
from mtl_rank.data.cache import Prepared, prepared
from mtl_rank.data.encoder import FeatureEncoder
from mtl_rank.data.prepare import example_columns
from mtl_rank.errors import ConfigError
from mtl_rank.evaluation.baselines import fit_baselines
from mtl_rank.evaluation.checks import DataChecks, check_data
from mtl_rank.evaluation.earlier import same_predictions, with_earlier
from mtl_rank.evaluation.evaluate import Evaluation, Question, evaluate_run, measured
from mtl_rank.evaluation.scored import scored_rows
from mtl_rank.evaluation.windows import EmptyWindow, Window, split_window
from mtl_rank.features.ages import match_ages
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.snapshot import snapshot_rows
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter
from mtl_rank.runs import Run


@dataclass(frozen=True)
class Asked:
    """What to measure a run on. See `mtl_rank.evaluate`. Raises ConfigError for a few draws."""

    split: str | None = None
    examples: str | None = None
    by: Sequence[str] = ()
    draws: int | None = None
    baselines: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.draws is not None and 0 < self.draws < FEWEST_DRAWS:
            raise ConfigError(
                f"--draws {self.draws}: tells no interval; 0 for none, or at least {FEWEST_DRAWS}"
            )

    def window(self, config: ProjectConfig, default: str | None) -> Window:
        """The window of the split, or of `default`; None = every row."""
        name = self.split or (default if self.examples is None else None)
        return Window("examples") if name is None else split_window(config, name)


def evaluate_stored(
    run: Run, project: Path, repository: FeatureRepository, asked: Asked, reporter: Reporter
) -> Evaluation:
    """Retrieve the features of labelled rows, predict and measure."""
    config = run.config()
    models = []
    if asked.baselines:
        data = prepared(config, project, repository, reporter)
        models = fit_baselines(asked.baselines, config, data.encoder, data.train, reporter)
    rows = asked.examples or config.examples
    question = Question(asked.window(config, "test"), rows, asked.by, asked.draws, models)
    with tempfile.TemporaryDirectory(dir=run.folder) as folder:
        result = evaluate_run(Predictor.load(run), repository, project, question, Path(folder), reporter)
    keep(run, result)
    return result


def evaluate_scores(run: Run, project: Path, scores: str, asked: Asked, reporter: Reporter) -> Evaluation:
    """Measure scores that the run wrote before."""
    config, encoder = run.config(), FeatureEncoder.load(run.encoder_folder)
    rows = asked.examples or config.examples
    draws = config.evaluation.draws if asked.draws is None else asked.draws
    with tempfile.TemporaryDirectory(dir=run.folder) as folder:
        scored = scored_rows(
            config,
            encoder,
            project,
            rows,
            asked.window(config, None),
            scores,
            run.id,
            asked.by,
            Path(folder),
            reporter,
        )
        result = measured(scored.outcomes, "scores", draws, config.fit.seed, scored.coverage)
    keep(run, result)
    return result


def evaluate_test(
    run: Run, project: Path, repository: FeatureRepository, data: Prepared, reporter: Reporter
) -> None:
    """Measure a new run on the test window; not when the examples end before it."""
    config = run.config()
    models = fit_baselines(config.evaluation.baselines, config, data.encoder, data.train, reporter)
    question = Question(
        split_window(config, "test"), config.examples, baselines=models, insight=True, compared=data.train
    )
    try:
        with tempfile.TemporaryDirectory(dir=run.folder) as folder:
            keep(
                run, evaluate_run(Predictor.load(run), repository, project, question, Path(folder), reporter)
            )
    except EmptyWindow as error:
        reporter.say(f"not evaluated: {error}")


def check_project(
    config: ProjectConfig, project: Path, repository: FeatureRepository, reporter: Reporter
) -> DataChecks:
    """Prepare the training data, or find it prepared, and look at it."""
    return check_prepared(
        config, project, repository, prepared(config, project, repository, reporter), reporter
    )


def check_prepared(
    config: ProjectConfig, project: Path, repository: FeatureRepository, data: Prepared, reporter: Reporter
) -> DataChecks:
    """Look at prepared data, and at the ages of the feature rows that were matched."""
    reporter.stage("match feature rows", None)
    with tempfile.TemporaryDirectory(prefix="mtlrank-") as folder:
        columns = example_columns(config, repository)
        before = config.split.test
        path = Path(folder) / "examples.parquet"
        snapshot = snapshot_rows(config.examples, project, columns, path, before=before)
        ages = match_ages(repository, snapshot)
    reporter.stage("check inputs", None)
    return check_data(config, data.encoder, data.train, data.valid, ages)


def keep(run: Run, result: Evaluation) -> None:
    """Put an evaluation into the run: its numbers, and what a report draws.

    What was known of the same predictions before and was not asked for again stays: intervals of more draws,
    slices by other columns, simpler models, what is inside the network.
    """
    with run.kept_by_one():
        _keep(run, result)


def _keep(run: Run, result: Evaluation) -> None:
    stored, details, window = run.metrics(), run.details(), result.window
    document, before = result.as_dict(), stored.get(window, {})
    again = same_predictions(document, before)
    models = {name: one for name, one in stored.get("baselines", {}).items() if again or name != window}
    if result.baselines:
        models[window] = {**models.get(window, {}), **result.baselines}
    run.write_metrics(
        {
            **stored,
            **({"baselines": models} if models else {}),
            window: with_earlier(document, before) if again else document,
        }
    )
    drawn = details.get(window, {}) if again else {}
    run.write_details({**details, window: {**drawn, **result.drawn()}})
