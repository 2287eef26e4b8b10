"""A database file of its own for each test."""

import pytest

from mtl_rank.scoring.table import ScoresTarget


@pytest.fixture
def target(tmp_path):
    return ScoresTarget(tmp_path / "scores.duckdb")
