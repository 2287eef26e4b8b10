"""Rows sorted by group and score once: the lists that users or requests saw, for every metric within them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_rank.metrics._checks import Array, Positions, column, positions, starts_of_runs, weights_of

_PART = 1 << 20


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


@dataclass(frozen=True)
class OrderedLists:
    """Labelled rows by group, within each group the lowest score first.

    keys, labels, scores: (N,). mass: (N,) weights; None = each row counts once.
    """

    keys: Array
    labels: Array
    scores: Array
    mass: NDArray[np.float64] | None

    @staticmethod
    def of(
        labels: Array,
        scores: ArrayLike,
        groups: ArrayLike,
        weights: ArrayLike | None = None,
        order: Positions | None = None,
    ) -> "OrderedLists":
        """Sort rows by group and score. labels: (N,) checked. order: of the rows by score, where it is known.

        Raises ValueError for NaN and for groups that cannot be sorted.
        """
        s = column("scores", scores, len(labels))
        w = weights_of(weights, len(labels))
        keys = group_keys(groups, len(labels))
        if order is None:
            order = positions(np.argsort(s))
        order = order[np.argsort(keys[order], kind="stable")]
        return OrderedLists(keys[order], labels[order], s[order], None if w is None else w[order])

    def parts(self) -> Iterator["OrderedLists"]:
        """Whole groups, about a million rows at a time: what is computed per row stays small."""
        wanted = np.arange(0, len(self.keys), _PART)
        firsts: list[int] = self.starts[np.searchsorted(self.starts, wanted, "right") - 1].tolist()
        for start, end in pairwise([*dict.fromkeys(firsts), len(self.keys)]):
            rows = slice(start, end)
            mass = None if self.mass is None else self.mass[rows]
            yield OrderedLists(self.keys[rows], self.labels[rows], self.scores[rows], mass)

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """(G,) where each group begins."""
        return starts_of_runs(self.keys)

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """(G,) rows of each group."""
        return np.diff(self.starts, append=len(self.keys))

    @cached_property
    def ties(self) -> NDArray[np.intp]:
        """(R,) where each run of one group and one score begins."""
        return starts_of_runs(self.keys, self.scores)

    def group_aucs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(G,) AUC of each group, NaN with one class, and (G,) its impressions: rows, or their weights."""
        found = [part._group_aucs() for part in self.parts()]
        if not found:
            return np.empty(0), np.empty(0)
        values, impressions = zip(*found, strict=True)
        return np.concatenate(values), np.concatenate(impressions)

    def _group_aucs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weighted = self.mass is not None
        mass = self.mass if self.mass is not None else np.ones(len(self.keys))
        y = self.labels.astype(bool, copy=False)
        positive = np.add.reduceat(mass * y if weighted else y.astype(np.float64), self.ties)
        total = np.add.reduceat(mass, self.ties)
        negative = np.add.reduceat(mass * ~y, self.ties) if weighted else total - positive
        first_tie = np.searchsorted(self.ties, self.starts)
        group = np.repeat(np.arange(len(self.starts)), np.diff(first_tie, append=len(self.ties)))
        group_positive = np.add.reduceat(positive, first_tie)
        group_negative = np.add.reduceat(negative, first_tie)
        used = (group_positive > 0) & (group_negative > 0)
        # Shares of the group's own mass: the one running sum over all groups stays small and loses no digits.
        positive /= np.where(used, group_positive, 1)[group]
        negative /= np.where(used, group_negative, 1)[group]
        below = np.cumsum(negative) - negative
        below -= below[first_tie][group]
        values = np.add.reduceat(positive * (below + negative / 2), first_tie)
        return np.where(used, values, np.nan), group_positive + group_negative

    def gauc(self) -> GroupedMetric:
        """AUC within each group, averaged by its impressions; groups with one class are left out and counted."""
        values, impressions = self.group_aucs()
        return self._average(values, ~np.isnan(values), impressions)

    def ndcg(self, k: int) -> GroupedMetric:
        """Mean over groups of DCG@k / ideal DCG@k; groups without relevance are left out and counted."""
        return self._mean(k, lambda lists, top: (top.dcg(), lists._ideal_dcg(k, top.positives)))

    def recall(self, k: int) -> GroupedMetric:
        """Mean over groups of the share of the group's positives in its top k."""
        return self._mean(k, lambda _, top: (top.per_group(top.expected), top.positives))

    def map(self, k: int) -> GroupedMetric:
        """Mean over groups of AP@k = sum over hits in the top k of precision at the hit, over min(positives, k)."""
        return self._mean(k, lambda _, top: (top.precisions(), np.minimum(top.positives, k)))

    def _ideal_dcg(self, k: int, positives: Array) -> Array:
        if self.labels.dtype == bool:
            discounts = np.cumsum(1 / np.log2(np.arange(1, k + 1) + 1))
            return np.append(0.0, discounts)[np.minimum(positives, k).astype(np.intp)]
        order = np.lexsort((self.labels, self.keys))
        return OrderedLists(self.keys, self.labels[order], self.labels[order], None).top(k).dcg()

    def top(self, k: int) -> "Top":
        """The k best rows of every group."""
        rows, groups = len(self.keys), len(self.starts)
        ends = self.starts + self.sizes
        # Row by row from each group's end: place i of group g is row ends[g] - 1 - i.
        kept = np.minimum(self.sizes, k)
        group = np.repeat(np.arange(groups), kept)
        rank = np.arange(len(group)) - np.repeat(np.cumsum(kept) - kept, kept) + 1
        row = ends[group] - rank
        block = np.searchsorted(self.ties, row, "right") - 1
        block_ends = np.append(self.ties[1:], rows)
        y = self.labels.astype(np.float64, copy=False)
        running = np.concatenate(([0.0], np.cumsum(y)))
        block_sum = running[block_ends[block]] - running[self.ties[block]]
        tied = block_ends[block] - self.ties[block]
        return Top(
            groups=groups,
            positives=running[ends] - running[self.starts],
            group=group,
            rank=rank,
            place=block_ends[block] - row,
            tied=tied,
            expected=block_sum / tied,
            before=running[ends][group] - running[block_ends[block]],
        )

    def _mean(self, k: int, measure: Callable[["OrderedLists", "Top"], tuple[Array, Array]]) -> GroupedMetric:
        """measure: a group's gain and the most it could have been, (G,) each; the mean of their ratios."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        found = [measure(part, part.top(k)) for part in self.parts()]
        gained, possible = (
            (np.concatenate(side) for side in zip(*found, strict=True)) if found else (np.empty(0),) * 2
        )
        used = possible > 0
        values = np.divide(gained, possible, out=np.zeros(len(gained)), where=used)
        return self._average(values, used, np.ones(len(values)))

    def _average(self, values: Array, used: NDArray[np.bool_], weights: Array) -> GroupedMetric:
        count = int(np.count_nonzero(used))
        value = float(values[used] @ weights[used] / weights[used].sum()) if count else None
        return GroupedMetric(value, count, len(used) - count, int(self.sizes[used].sum()))


@dataclass(frozen=True)
class Top:
    """The top k of every group, best first: (R,) per row kept, (G,) per group.

    positives: sum of the group's labels. rank: 1 = best of the group. place: 1 = first of its block of tied
    rows. tied: rows in that block. expected: mean label of the block. before: sum of the labels above it.
    """

    groups: int
    positives: Array
    group: NDArray[np.intp]
    rank: NDArray[np.intp]
    place: NDArray[np.intp]
    tied: NDArray[np.intp]
    expected: Array
    before: Array

    def per_group(self, values: Array) -> Array:
        return np.bincount(self.group, values, minlength=self.groups)

    def precisions(self) -> Array:
        """(G,) sum over the hits of the precision at the hit."""
        # Within a block of m tied rows with r hits, in random order (McSherry and Najork 2008): a hit at its
        # j-th place has on average (j - 1) (r - 1) / (m - 1) hits of the block before it.
        hits = self.expected * self.tied
        above = (self.place - 1) * (hits - 1) / np.maximum(self.tied - 1, 1)
        return self.per_group(self.expected * (self.before + 1 + above) / self.rank)

    def dcg(self) -> Array:
        return self.per_group(self.expected / np.log2(self.rank + 1))


def group_keys(groups: ArrayLike, rows: int) -> Array:
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
