"""Targets of their own for each test."""

import pytest

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
