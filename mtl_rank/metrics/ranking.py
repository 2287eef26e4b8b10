"""Does the model put the right rows first? AUC, GAUC, average precision and the measures of a list's top k.

Shapes: labels (N,), scores (N,) of any scale, groups (N,) of any sortable key (user, request, user-day),
weights (N,) >= 0 or None. Labels are 0/1; NDCG alone takes graded relevance >= 0. Ties are never broken by
the order of the rows: AUC counts half of them, the measures at k are the mean over all orders of tied rows.
Where a number is undefined it is None, never NaN. NaN raises ValueError.

Several metrics of the same rows: `Ordered` and `OrderedLists` sort once for all of them.
"""

import numpy as np
from numpy.typing import ArrayLike

from mtl_rank.metrics._checks import binary, column
from mtl_rank.metrics.lists import GroupedMetric, OrderedLists
from mtl_rank.metrics.ordered import Ordered


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Chance that a positive outscores a negative, ties counting half (area under the ROC curve).

    None when only one class is present. Exact: without weights the pairs are counted in integers.
    """
    return Ordered.of(labels, scores, weights).auc()


def gauc(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None
) -> GroupedMetric:
    """AUC within each group, averaged by the group's impressions (Zhou et al. 2018).

    Impressions are the group's rows, or the sum of their weights. Groups with one class only have no AUC:
    they are left out and counted.
    """
    return OrderedLists.of(binary(labels), scores, groups, weights).gauc()


def pr_auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Average precision: sum over the distinct scores, highest first, of recall gained x precision.

    None without positives.
    """
    return Ordered.of(labels, scores, weights).pr_auc()


def ndcg_at_k(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, k: int) -> GroupedMetric:
    """Mean over groups of DCG@k / ideal DCG@k, where DCG = sum of label / log2(rank + 1).

    Järvelin and Kekäläinen 2002. Gains are linear in the label. Groups without any relevance are left out and
    counted.
    """
    y = column("labels", labels).astype(np.float64)
    if len(y) and (y.min() < 0 or not np.isfinite(y.max())):
        raise ValueError("labels must be finite and at least 0")
    return OrderedLists.of(y, scores, groups).ndcg(k)


def recall_at_k(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, k: int) -> GroupedMetric:
    """Mean over groups of the share of the group's positives found in its top k.

    Groups without positives are left out and counted.
    """
    return OrderedLists.of(binary(labels), scores, groups).recall(k)


def map_at_k(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, k: int) -> GroupedMetric:
    """Mean over groups of AP@k = sum over hits in the top k of precision at the hit, over min(positives, k).

    Groups without positives are left out and counted.
    """
    return OrderedLists.of(binary(labels), scores, groups).map(k)
