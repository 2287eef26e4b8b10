"""A Feast feature repository, opened for one FeatureService."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import feast
import yaml
from feast.errors import FeastObjectNotFoundException
from pydantic import ValidationError

from mtl_rank.config import ContextOptions
from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.features.schema import FeatureSchema, read_schema


@dataclass(frozen=True)
class FeatureRepository:
    """An applied repository, one of its services, and what the model reads from it."""

    path: Path
    store: feast.FeatureStore
    service: feast.FeatureService
    schema: FeatureSchema


def open_repository(path: Path, service: str, context: Mapping[str, ContextOptions]) -> FeatureRepository:
    """Open `path` and read the schema of `service`.

    Raises ConfigError when the folder is no feature repository, was never applied or lacks the service.
    """
    if not (path / "feature_store.yaml").is_file():
        raise ConfigError(
            f"feature_repo: {path} has no feature_store.yaml; point feature_repo at a Feast repository"
        )
    try:
        store = feast.FeatureStore(repo_path=str(path))
        known = {found.name: found for found in store.list_feature_services()}
    except (yaml.YAMLError, ValidationError, feast.errors.FeastError) as error:
        raise ConfigError(f"{path / 'feature_store.yaml'}: {_first_line(error)}") from None
    except FileNotFoundError:
        known = {}
    if not known:
        raise ConfigError(
            f"{path} was never applied or has no feature service; run: cd {path} && feast apply"
        )
    if service not in known:
        raise ConfigError(
            f"feature_service: {path} has no service {service!r}; {did_you_mean(service, known)} "
            "(run feast apply after a change)"
        )
    try:
        schema = read_schema(store, known[service], context)
    except FeastObjectNotFoundException as error:
        raise ConfigError(
            f"feature_service {service}: {_first_line(error)}; run: cd {path} && feast apply"
        ) from None
    return FeatureRepository(path, store, known[service], schema)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
