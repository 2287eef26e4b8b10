"""Lambda strategies: from per-task losses to one total."""

from mtl_rank.training.weighting.base import Weighted, Weighting
from mtl_rank.training.weighting.methods import METHODS, build_weighting, check_weighting

__all__ = ["METHODS", "Weighted", "Weighting", "build_weighting", "check_weighting"]
