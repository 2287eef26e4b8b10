"""One registry for all tests of the offline store: it holds no on-demand views unless a test applies some."""

from pathlib import Path

import pytest
from feast.infra.registry.registry import Registry
from feast.repo_config import RegistryConfig


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    path: Path = tmp_path_factory.mktemp("registry") / "registry.db"
    return Registry("shop", RegistryConfig(path=str(path)), None)
