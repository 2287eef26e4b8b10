"""Does the model put the right rows first? AUC, GAUC, average precision and the measures of a list's top k.

Shapes: labels (N,), scores (N,) of any scale, groups (N,) of any sortable key (user, request, user-day),
weights (N,) >= 0 or None. Labels are 0/1; NDCG alone takes graded relevance >= 0. Ties are never broken by
the order of the rows: AUC counts half of them, the measures at k are the mean over all orders of tied rows.
Where a number is undefined it is None, never NaN. NaN raises ValueError.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_rank.metrics._checks import Array, binary, column, starts_of_runs, weights_of


@dataclass(frozen=True)
class GroupedMetric:
    """A metric computed within each group, then averaged.

    value: None when no group could be used. groups_left_out: those where the metric is undefined, such as one
    class only. rows_used: rows of the groups used.
    """

    value: float | None
    groups_used: int
    groups_left_out: int
    rows_used: int


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Chance that a positive outscores a negative, ties counting half (area under the ROC curve).

    None when only one class is present. Exact: without weights the pairs are counted in integers.
    """
    y = binary(labels)
    s = column("scores", scores, len(y))
    w = weights_of(weights, len(y))
    positives, negatives = s[y], s[~y]
    if w is None:
        if not len(positives) or not len(negatives):
            return None
        # Sorted needles walk through the sorted haystack in order: several times faster than in random order.
        positives.sort()
        negatives.sort()
        twice_won = sum(int(np.searchsorted(negatives, positives, side).sum()) for side in ("left", "right"))
        return twice_won / (2 * len(positives) * len(negatives))
    positive_mass, negative_mass = w[y], w[~y]
    total = float(positive_mass.sum()) * float(negative_mass.sum())
    if not total > 0:
        return None
    order = np.argsort(negatives)
    negatives = negatives[order]
    below = np.concatenate(([0.0], np.cumsum(negative_mass[order])))
    twice_won_mass = below[np.searchsorted(negatives, positives, "left")]
    twice_won_mass += below[np.searchsorted(negatives, positives, "right")]
    return float(twice_won_mass @ positive_mass) / (2 * total)


def gauc(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None
) -> GroupedMetric:
    """AUC within each group, averaged by the group's impressions (Zhou et al. 2018).

    Impressions are the group's rows, or the sum of their weights. Groups with one class only have no AUC:
    they are left out and counted.
    """
    y = binary(labels)
    s = column("scores", scores, len(y))
    w = weights_of(weights, len(y))
    keys = _keys(groups, len(y))
    if not len(y):
        return GroupedMetric(None, 0, 0, 0)
    order = np.lexsort((s, keys))
    keys, y = keys[order], y[order]
    starts, ties = starts_of_runs(keys), starts_of_runs(keys, s[order])
    mass = np.ones(len(y)) if w is None else w[order]
    positive = np.add.reduceat(mass * y, ties)
    negative = np.add.reduceat(mass * ~y, ties)
    first_tie = np.searchsorted(ties, starts)
    group = np.repeat(np.arange(len(starts)), np.diff(first_tie, append=len(ties)))
    group_positive = np.add.reduceat(positive, first_tie)
    group_negative = np.add.reduceat(negative, first_tie)
    used = (group_positive > 0) & (group_negative > 0)
    # Shares of the group's own mass: the one running sum over all groups stays small and loses no digits.
    positive /= np.where(used, group_positive, 1)[group]
    negative /= np.where(used, group_negative, 1)[group]
    below = np.cumsum(negative) - negative
    below -= below[first_tie][group]
    values = np.add.reduceat(positive * (below + negative / 2), first_tie)
    return _average(values, used, starts, len(y), group_positive + group_negative)


def pr_auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Average precision: sum over the distinct scores, highest first, of recall gained x precision.

    None without positives.
    """
    y = binary(labels)
    s = column("scores", scores, len(y))
    w = weights_of(weights, len(y))
    if not len(y):
        return None
    order = np.argsort(s)[::-1]
    last = np.append(starts_of_runs(s[order])[1:], len(y)) - 1
    y = y[order]
    mass = np.ones(len(y)) if w is None else w[order]
    hits, seen = np.cumsum(mass * y)[last], np.cumsum(mass)[last]
    if not hits[-1] > 0:
        return None
    precision = np.divide(hits, seen, out=np.zeros(len(last)), where=seen > 0)
    return float(np.diff(hits, prepend=0) @ precision / hits[-1])


def ndcg_at_k(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, k: int) -> GroupedMetric:
    """Mean over groups of DCG@k / ideal DCG@k, where DCG = sum of label / log2(rank + 1).

    Järvelin and Kekäläinen 2002. Gains are linear in the label. Groups without any relevance are left out and
    counted.
    """
    y = column("labels", labels).astype(np.float64)
    if len(y) and (y.min() < 0 or not np.isfinite(y.max())):
        raise ValueError("labels must be finite and at least 0")
    best = _ranked(y, y, groups, k).dcg()
    lists = _ranked(y, scores, groups, k)
    return lists.mean(lists.dcg(), best)


def recall_at_k(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, k: int) -> GroupedMetric:
    """Mean over groups of the share of the group's positives found in its top k.

    Groups without positives are left out and counted.
    """
    lists = _ranked(binary(labels).astype(np.float64), scores, groups, k)
    return lists.mean(lists.per_group(lists.expected), lists.positives)


def map_at_k(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, k: int) -> GroupedMetric:
    """Mean over groups of AP@k = sum over hits in the top k of precision at the hit, over min(positives, k).

    Groups without positives are left out and counted.
    """
    lists = _ranked(binary(labels).astype(np.float64), scores, groups, k)
    # Within a block of m tied rows with r hits, in random order (McSherry and Najork 2008): a hit at its j-th
    # place has on average (j - 1) (r - 1) / (m - 1) hits of the block before it.
    hits = lists.expected * lists.tied
    above = (lists.place - 1) * (hits - 1) / np.maximum(lists.tied - 1, 1)
    precision = (lists.before + 1 + above) / lists.rank
    return lists.mean(lists.per_group(lists.expected * precision), np.minimum(lists.positives, k))


@dataclass(frozen=True)
class _Ranked:
    """The top k of every group, best first: (R,) per row kept, (G,) per group.

    positives: sum of the group's labels. rank: 1 = best of the group. place: 1 = first of its block of tied
    rows. tied: rows in that block. expected: mean label of the block. before: sum of the labels above it.
    """

    rows: int
    starts: NDArray[np.intp]
    positives: Array
    group: NDArray[np.intp]
    rank: NDArray[np.intp]
    place: NDArray[np.intp]
    tied: NDArray[np.intp]
    expected: Array
    before: Array

    def per_group(self, values: Array) -> Array:
        return np.bincount(self.group, values, minlength=len(self.starts))

    def dcg(self) -> Array:
        return self.per_group(self.expected / np.log2(self.rank + 1))

    def mean(self, gained: Array, possible: Array) -> GroupedMetric:
        used = possible > 0
        values = np.divide(gained, possible, out=np.zeros(len(gained)), where=used)
        return _average(values, used, self.starts, self.rows, np.ones(len(values)))


def _ranked(y: Array, scores: ArrayLike, groups: ArrayLike, k: int) -> _Ranked:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    s = column("scores", scores, len(y))
    keys = _keys(groups, len(y))
    rows = len(y)
    # Ascending, then read backwards: a negated score would wrap around where it is an unsigned integer.
    order = np.lexsort((s, keys))[::-1]
    keys, s, y = keys[order], s[order], y[order]
    starts, blocks = starts_of_runs(keys), starts_of_runs(keys, s)
    tied = np.diff(blocks, append=rows)
    block_sum = np.add.reduceat(y, blocks) if rows else np.empty(0)
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=rows))
    before = np.cumsum(block_sum) - block_sum
    before -= before[np.searchsorted(blocks, starts)][group[blocks]]
    top = np.flatnonzero(np.arange(rows) - starts[group] < k)
    block = np.repeat(np.arange(len(blocks)), tied)[top]
    return _Ranked(
        rows=rows,
        starts=starts,
        positives=np.add.reduceat(y, starts) if rows else np.empty(0),
        group=group[top],
        rank=top - starts[group[top]] + 1,
        place=top - blocks[block] + 1,
        tied=tied[block],
        expected=block_sum[block] / tied[block],
        before=before[block],
    )


def _average(
    values: Array, used: NDArray[np.bool_], starts: NDArray[np.intp], rows: int, weights: Array
) -> GroupedMetric:
    count = int(np.count_nonzero(used))
    sizes = np.diff(starts, append=rows)
    value = float(values[used] @ weights[used] / weights[used].sum()) if count else None
    return GroupedMetric(value, count, len(used) - count, int(sizes[used].sum()))


def _keys(groups: ArrayLike, rows: int) -> Array:
    """Group keys that sort fast: numbers as they are, anything else as the number of its distinct value."""
    keys = np.asarray(groups)
    if keys.dtype.kind in "biuf":
        return column("groups", keys, rows)
    if keys.shape != (rows,):
        raise ValueError(f"groups has the shape {keys.shape} for {rows} labels")
    try:
        return np.unique(keys, return_inverse=True)[1]
    except TypeError:
        raise ValueError("groups mixes values that cannot be sorted, such as text and None") from None
