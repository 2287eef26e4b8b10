"""What a project gives a model to read, and whether it is fit to be read."""

from pathlib import Path

from mtl_rank.config import ProjectConfig, load_config
from mtl_rank.evaluation.checks import DataChecks
from mtl_rank.evaluation.of_run import check_project
from mtl_rank.features.repository import FeatureRepository, open_repository
from mtl_rank.features.schema import FeatureSchema
from mtl_rank.progress import Reporter, Silent


def project_repository(project: Path, config: ProjectConfig) -> FeatureRepository:
    """The feature repository that a configuration names, with its feature service."""
    return open_repository((project / config.feature_repo).resolve(), config.feature_service, config.context)


def inputs(project: Path | str) -> FeatureSchema:
    """What the model of a project would read."""
    config = load_config(Path(project))
    return project_repository(Path(project), config).schema


def check(project: Path | str, reporter: Reporter | None = None) -> DataChecks:
    """Look at the data that a project would train on: leaks, dead views, drift, what is missing or unseen.

    The data is prepared for this, and a training that follows finds it prepared.
    """
    project, reporter = Path(project), reporter or Silent()
    config = load_config(project)
    return check_project(config, project, project_repository(project, config), reporter)
