"""Without Ray: the command says which extra it is in."""

import sys

import pytest

from mtl_rank.errors import ConfigError
from mtl_rank.scoring.ray_engine import Cluster
from mtl_rank.scoring.score import ScoreOptions


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'mtl-rank\[ray\]'"):
        ScoreOptions(cluster=Cluster())
    with pytest.raises(ConfigError, match="--workers 0"):
        Cluster(workers=0)
