"""A small demo shop, simulated and applied once for all tests of a process."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Chosen before torch is loaded: many small trainings on few cores are quickest with one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is printed has no colours and its usual width, whatever a terminal, or a service that runs tests, wants.
WISHES = "COLUMNS LINES TERMINAL_WIDTH FORCE_COLOR PY_COLORS GITHUB_ACTIONS TTY_COMPATIBLE TTY_INTERACTIVE"
for wish in WISHES.split():
    os.environ.pop(wish, None)

# What is remembered of the machine is no user's, and can be written where no home can.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"mtlrank-tests-{os.getuid()}")

# Properties are tried on busy machines too: no deadlines, neither for the property nor for making its examples. The
# default run tries the same examples every time, so that it fails by a change alone; the slow suite looks for new ones.
NO_DEADLINES: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", **NO_DEADLINES, derandomize=True)
settings.register_profile("searching", **NO_DEADLINES)
settings.load_profile("repeatable")

CHECKOUT = Path(__file__).parents[1]
ROWS = 6_000
NOT_A_TEMPLATE = shutil.ignore_patterns("__pycache__", "data")


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo shop with few rows, its feature repository applied, nothing trained. To be copied, not changed."""
    from mtl_rank.datasets.projects import apply_features
    from mtl_rank.datasets.shop import simulate_shop

    project = tmp_path_factory.mktemp("applied") / "shop"
    project.mkdir()
    shutil.copy(CHECKOUT / "mtlrank.yaml", project)
    shutil.copytree(CHECKOUT / "feature_repo", project / "feature_repo", ignore=NOT_A_TEMPLATE)
    simulate_shop(project / "data", rows=ROWS, seed=7)
    apply_features(project / "feature_repo")
    return project


@pytest.fixture
def project(applied: Path, tmp_path: Path) -> Path:
    """A copy of the shop that a test may change."""
    return shutil.copytree(applied, tmp_path / "shop")


@pytest.fixture(scope="session")
def trained(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop with one finished run of two epochs. To be read, not changed."""
    import mtl_rank as mr

    project = shutil.copytree(applied, tmp_path_factory.mktemp("trained") / "shop")
    mr.train(project, settings={"fit.epochs": 2})
    return project
