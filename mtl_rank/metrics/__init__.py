"""Metrics as pure functions on arrays: exact, without a model and without files."""

from mtl_rank.metrics.probability import (
    Reliability,
    brier,
    calibration,
    expected_calibration_error,
    log_loss,
    normalised_entropy,
    reliability,
)
from mtl_rank.metrics.ranking import GroupedMetric, auc, gauc, map_at_k, ndcg_at_k, pr_auc, recall_at_k
from mtl_rank.metrics.regression import mae, rmse, spearman

__all__ = [
    "GroupedMetric",
    "Reliability",
    "auc",
    "brier",
    "calibration",
    "expected_calibration_error",
    "gauc",
    "log_loss",
    "mae",
    "map_at_k",
    "ndcg_at_k",
    "normalised_entropy",
    "pr_auc",
    "recall_at_k",
    "reliability",
    "rmse",
    "spearman",
]
