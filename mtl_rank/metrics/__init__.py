"""Metrics as pure functions on arrays: exact, without a model and without files."""

from mtl_rank.metrics._checks import Positions
from mtl_rank.metrics.bootstrap import RESAMPLED, Difference, difference, interval, resampled, user_draws
from mtl_rank.metrics.classes import (
    accuracy,
    class_numbers,
    cross_entropy,
    macro_auc,
    normalised_cross_entropy,
    quadratic_kappa,
)
from mtl_rank.metrics.lists import GroupedMetric, OrderedLists
from mtl_rank.metrics.ordered import Ordered, Reliability, Thresholds, score_histogram
from mtl_rank.metrics.probability import (
    brier,
    calibration,
    expected_calibration_error,
    log_loss,
    normalised_entropy,
    reliability,
)
from mtl_rank.metrics.ranking import auc, gauc, map_at_k, ndcg_at_k, pr_auc, recall_at_k
from mtl_rank.metrics.regression import mae, rmse, spearman

__all__ = [
    "RESAMPLED",
    "Difference",
    "GroupedMetric",
    "Ordered",
    "OrderedLists",
    "Positions",
    "Reliability",
    "Thresholds",
    "accuracy",
    "auc",
    "brier",
    "calibration",
    "class_numbers",
    "cross_entropy",
    "difference",
    "expected_calibration_error",
    "gauc",
    "interval",
    "log_loss",
    "macro_auc",
    "mae",
    "map_at_k",
    "ndcg_at_k",
    "normalised_cross_entropy",
    "normalised_entropy",
    "pr_auc",
    "quadratic_kappa",
    "recall_at_k",
    "reliability",
    "resampled",
    "rmse",
    "score_histogram",
    "spearman",
    "user_draws",
]
