"""What tests of features share: a registry without on-demand views unless a test applies some, and a repository."""

from pathlib import Path

import pytest
from feast.infra.registry.registry import Registry
from feast.repo_config import RegistryConfig


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    path: Path = tmp_path_factory.mktemp("registry") / "registry.db"
    return Registry("shop", RegistryConfig(path=str(path)), None)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that is not the current folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "repo").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "repo"
