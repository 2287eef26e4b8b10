"""Ranks within a key: an expression orders the candidates of each user, and the best of them may be all that stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from mtl_rank.errors import ConfigError, DataError
from mtl_rank.scoring.expression import Doubles, RankExpression

VALUE, RANK = "rank_by", "rank"


@dataclass(frozen=True)
class Ranking:
    """How the rows of each key are ordered.

    expression: the larger, the better. per: columns whose equal values are one key. top_k: how many of each key are
    kept; None = all. keys: columns that tell a row from others, for messages.

    Raises:
        ConfigError: top_k is not positive.
    """

    expression: RankExpression
    per: tuple[str, ...]
    top_k: int | None = None
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"--top-k {self.top_k}: keep at least 1 of each {', '.join(self.per)}")

    @property
    def columns(self) -> dict[str, str]:
        """What ranking adds to a table: name -> DuckDB type."""
        return {VALUE: "DOUBLE", RANK: "BIGINT"}

    def apply(self, scores: pa.Table) -> pa.Table:
        """The rows of each key from the best on, with the columns `rank_by` and `rank`, which counts from 1.

        scores: whole keys, the rows of each in one piece. Of equal values the earlier row comes first; a value is
        missing where a column of the expression is, and such rows come last.

        Raises:
            DataError: the expression has no value for some row, of which the first is named.
        """
        values = self._values(scores)
        groups = key_numbers(scores, self.per)
        # Stable, and NaN, which stands for missing, sorts behind all numbers.
        order = np.lexsort((-values, groups))
        ranks = _counted(groups[order])
        if self.top_k is not None:
            order, ranks = order[ranks <= self.top_k], ranks[ranks <= self.top_k]
        ranked = scores.take(pa.array(order))
        ranked = ranked.append_column(VALUE, pa.array(values[order], from_pandas=True))
        return ranked.append_column(RANK, pa.array(ranks))

    def _values(self, scores: pa.Table) -> Doubles:
        columns = {name: _doubles(scores, name) for name in self.expression.names}
        try:
            return self.expression.evaluate(columns)
        except DataError as error:
            row = _first_without_value(self.expression, columns, scores.num_rows)
            shown = dict.fromkeys([*self.keys, *self.per, *self.expression.names])
            named = ", ".join(f"{name} {scores[name][row].as_py()}" for name in shown)
            raise DataError(f"{error}; the first: {named}") from None


def key_numbers(table: pa.Table, per: Sequence[str]) -> npt.NDArray[np.int64]:
    """Numbers that rise by one wherever the key changes from a row to the next; missing values are equal."""
    frame = pl.from_arrow(table.select(list(per)))
    assert isinstance(frame, pl.DataFrame)
    numbers: npt.NDArray[np.int64] = frame.select(pl.struct(pl.all()).rle_id()).to_series().to_numpy()
    return numbers.astype(np.int64)


def _first_without_value(expression: RankExpression, columns: Mapping[str, Doubles], rows: int) -> int:
    """The first row for which the expression has no value. There is one: each half is looked at whether it has it."""
    first, end = 0, rows
    while end - first > 1:
        middle = (first + end) // 2
        try:
            expression.evaluate({name: values[first:middle] for name, values in columns.items()})
            first = middle
        except DataError:
            end = middle
    return first


def _counted(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """1, 2, 3, ... within each run of equal numbers."""
    if not len(groups):
        return groups
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    lengths = np.diff(starts, append=len(groups))
    counted: npt.NDArray[np.int64] = np.arange(len(groups)) - np.repeat(starts, lengths) + 1
    return counted


def _doubles(table: pa.Table, name: str) -> Doubles:
    numbers: Doubles = table[name].cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    return numbers


def check_columns(expression: RankExpression, kinds: Mapping[str, str]) -> None:
    """Raise ConfigError for a column of the expression that holds no numbers. kinds: DuckDB types by name."""
    for name in expression.names:
        kind = kinds[name].partition("(")[0]
        if kind not in _NUMBERS:
            raise ConfigError(f"--rank-by {expression.text!r}: column {name!r} is {kinds[name]}, no number")


_NUMBERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("FLOAT", "DOUBLE", "DECIMAL"),
}
