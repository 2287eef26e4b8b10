"""Targets of their own for each test, and a shell for jobs that are stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from job_shell import Shell

from mtl_rank.scoring.parquet_target import ParquetTarget
from mtl_rank.scoring.table import ScoresTarget


@pytest.fixture
def target(tmp_path):
    return ScoresTarget(tmp_path / "scores.duckdb")


@pytest.fixture(params=["file", "folder"])
def parquet(request, tmp_path):
    if request.param == "file":
        return ParquetTarget(tmp_path / "scores.parquet", is_folder=False)
    return ParquetTarget(tmp_path / "scores", is_folder=True)


@pytest.fixture
def folder(tmp_path):
    return ParquetTarget(tmp_path / "scores", is_folder=True)


@pytest.fixture(scope="module")
def shell(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    started = Shell(trained, tmp_path_factory.mktemp("temporary"))
    yield started
    started.close()
