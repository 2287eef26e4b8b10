"""A Feast feature repository, opened for one FeatureService."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import feast
import yaml
from feast.errors import FeastObjectNotFoundException
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
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
    settings = path / "feature_store.yaml"
    if not settings.is_file():
        raise ConfigError(
            f"feature_repo: {path} has no feature_store.yaml; point feature_repo at a Feast repository"
        )
    try:
        if not isinstance(yaml.safe_load(settings.read_text(encoding="utf-8")), dict):
            raise ConfigError(f"{settings}: must be a mapping of keys such as project: and registry:")
        store = feast.FeatureStore(repo_path=str(path))
        known = {found.name: found for found in store.list_feature_services()} if _has_registry(store) else {}
    except ValidationError as error:
        raise ConfigError(f"{settings}: {_first_problem(error)}") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{settings}{line}: not YAML: {error.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, feast.errors.FeastError) as error:
        raise ConfigError(f"{settings}: {_first_line(error)}") from None
    except DecodeError:
        raise ConfigError(
            f"the registry of {path} is damaged; remove {store.config.registry.path} and run: "
            f"cd {path} && feast apply"
        ) from None
    if not known:
        raise ConfigError(
            f"feature_repo: {path} was never applied or has no feature service; run: cd {path} && feast apply"
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


def _has_registry(store: feast.FeatureStore) -> bool:
    """Whether the registry exists. Feast makes an empty one in the place of a file that does not."""
    registry = store.config.registry
    is_local = registry.registry_type == "file" and "://" not in registry.path
    return not is_local or registry.registry_store_type or (store.repo_path / registry.path).exists()


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if where else problem["msg"]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
