"""What each input looks like in encoded rows: what is missing, what training never met, what it tells alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_rank import metrics
from mtl_rank.data.encoded import EncodedDataset, take
from mtl_rank.data.encoder import BIN_SUFFIX, MISSING_SUFFIX, EncodedRows, FeatureEncoder
from mtl_rank.data.vocabulary import FIRST, MISSING, UNSEEN
from mtl_rank.features.schema import Input
from mtl_rank.metrics import OrderedLists

SAMPLE_ROWS = 200_000
FREQUENT = 30
"""Values of an id that are compared one by one between splits; all others are one."""

_LENGTHS = (1, 2, 4, 8, 16)
_PRIOR_ROWS = 20
_FEWEST = 50

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """One input in some rows. Arrays are (N,).

    codes: positions in a small or large vocabulary: the id, the quantile bin, or the class of a list's length;
    0 = missing, 1 = unseen. numbers: the values of a dense input, the lengths of a list; None for an id.
    missing: None where it cannot be told. constant: every row has the same value, or none.
    """

    codes: Codes
    size: int
    numbers: npt.NDArray[np.float64] | None
    missing: npt.NDArray[np.bool_] | None
    unseen: float | None
    constant: bool


def sampled(data: EncodedDataset) -> EncodedRows:
    """At most 200,000 rows of a split, evenly spread, in memory."""
    return take(data.arrays, np.arange(0, data.rows, max(1, -(-data.rows // SAMPLE_ROWS))))


def columns(encoder: FeatureEncoder, rows: EncodedRows) -> Iterator[tuple[Input, Column]]:
    """Every input of the model with its values."""
    layout = encoder.layout
    ids = {column.name: i for i, column in enumerate(layout.ids)}
    lists = {column.name: i for i, column in enumerate(layout.sequences)}
    for spec in encoder.schema.inputs:
        if spec.role == "dense":
            yield spec, _dense(encoder, rows, spec, ids)
        elif spec.name in lists:
            i = lists[spec.name]
            yield spec, _list(rows.sequences[i], layout.sequences[i].pad_id)
        else:
            i = ids[spec.name]
            codes = rows.ids[:, i].astype(np.int64) - layout.ids[i].offset
            unseen = float(np.mean(codes == UNSEEN)) if len(codes) else None
            yield spec, Column(codes, layout.ids[i].size, None, codes == MISSING, unseen, _all_equal(codes))


def _dense(encoder: FeatureEncoder, rows: EncodedRows, spec: Input, ids: Mapping[str, int]) -> Column:
    layout = encoder.layout
    numbers = rows.dense[:, layout.dense.index(spec.name)].astype(np.float64)
    if spec.name + BIN_SUFFIX in ids:
        i = ids[spec.name + BIN_SUFFIX]
        codes = rows.ids[:, i].astype(np.int64) - layout.ids[i].offset
        constant = _all_equal(numbers) and _all_equal(codes)
        return Column(codes, layout.ids[i].size, numbers, codes == MISSING, None, constant)
    missing = None
    if spec.name + MISSING_SUFFIX in layout.dense:
        missing = rows.dense[:, layout.dense.index(spec.name + MISSING_SUFFIX)] == 1
    # Without bins of its own: standard deviations from the mean, by halves.
    codes = np.clip(np.floor(numbers * 2), -6, 6).astype(np.int64) + 6 + FIRST
    if missing is not None:
        codes[missing] = MISSING
    return Column(codes, 13 + FIRST, numbers, missing, None, _all_equal(numbers) and _all_equal(codes))


def _list(ids: npt.NDArray[np.int32], pad: int) -> Column:
    present = ids != pad
    lengths = present.sum(axis=1)
    unseen = float((ids == pad + UNSEEN).sum() / present.sum()) if present.any() else None
    codes = np.searchsorted(_LENGTHS, lengths, "right") - 1 + FIRST
    codes[lengths == 0] = MISSING
    numbers = lengths.astype(np.float64)
    return Column(codes, len(_LENGTHS) + FIRST, numbers, lengths == 0, unseen, _all_equal(ids))


def _all_equal(values: npt.NDArray[Any]) -> bool:
    return len(values) > 1 and bool((values == values[:1]).all())


def population_stability(a: Column, b: Column) -> float | None:
    """PSI: sum over classes of (p - q) log(p / q), less what chance alone would give. None without rows.

    Classes: the 30 most frequent values of `a`, missing, unseen, and all others together; each share counts half
    a row more. By chance the sum is about (classes - 1) (1 / n_a + 1 / n_b).
    """
    if not len(a.codes) or not len(b.codes):
        return None
    counts = np.stack([np.bincount(column.codes, minlength=a.size) for column in (a, b)]).astype(float)
    own = np.argsort(-counts[0, FIRST:], kind="stable")[:FREQUENT] + FIRST
    kept = np.zeros(a.size, bool)
    kept[[MISSING, UNSEEN, *own]] = True
    shares = np.column_stack([counts[:, kept], counts[:, ~kept].sum(axis=1)])
    shares = shares[:, shares.sum(axis=0) > 0] + 0.5
    shares /= shares.sum(axis=1, keepdims=True)
    gaps = shares[0] - shares[1]
    by_chance = (shares.shape[1] - 1) * (1 / len(a.codes) + 1 / len(b.codes))
    total = float(gaps @ np.log(shares[0] / shares[1]))
    return max(0.0, total - float(by_chance))


@dataclass(frozen=True)
class Alone:
    """What one input tells of one task: AUC, or |Spearman| of a regression task.

    The AUC of a number is turned so that it is at least .5. That of an id is not: by chance it may be below.

    within: its GAUC within users, turned the same way; None where it cannot be told.
    """

    strength: float
    within: float | None


def alone(
    train: Column,
    valid: Column,
    labels: tuple[Any, Any],
    kind: str,
    users: npt.NDArray[np.int64] | None,
) -> Alone | None:
    """labels: of the training and the validation rows, NaN = undefined. users: of the training rows.

    Numbers are ranked as they are; an id by its rate in training, measured on the validation rows.
    """
    found = [_by_rate(train, valid, *labels, kind)]
    if train.numbers is not None:
        found.append(_by_number(train.numbers, labels[0], kind, users))
    known = [one for one in found if one is not None]
    return max(known, key=lambda one: one.strength, default=None)


def _by_number(
    values: npt.NDArray[np.float64], labels: Any, kind: str, users: npt.NDArray[np.int64] | None
) -> Alone | None:
    defined = ~np.isnan(labels)
    y, x = labels[defined], values[defined]
    if len(y) < _FEWEST:
        return None
    if kind != "binary":
        rho = metrics.spearman(y, x)
        return None if rho is None else Alone(abs(rho), None)
    auc = metrics.auc(y, x)
    if auc is None:
        return None
    turned = x if auc >= 0.5 else -x
    within = None
    if users is not None:
        within = OrderedLists.of(y > 0, turned, users[defined]).gauc().value
    return Alone(max(auc, 1 - auc), within)


def _by_rate(train: Column, valid: Column, labels: Any, held_out: Any, kind: str) -> Alone | None:
    defined, measured = ~np.isnan(labels), ~np.isnan(held_out)
    if min(defined.sum(), measured.sum()) < _FEWEST:
        return None
    count = np.bincount(train.codes[defined], minlength=train.size)
    total = np.bincount(train.codes[defined], labels[defined], minlength=train.size)
    rates = (total + _PRIOR_ROWS * labels[defined].mean()) / (count + _PRIOR_ROWS)
    found, y = rates[valid.codes[measured]], held_out[measured]
    strength = metrics.auc(y, found) if kind == "binary" else metrics.spearman(y, found)
    return None if strength is None else Alone(abs(float(strength)), None)
