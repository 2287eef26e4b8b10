"""Fits a FeatureEncoder in one pass over the training rows."""

from collections.abc import Iterable, Mapping

import polars as pl

from mtl_rank.config import Task
from mtl_rank.config.model import Dim
from mtl_rank.data.dense import DenseFitter, as_numbers
from mtl_rank.data.encoder import FeatureEncoder, owner_of, require_columns
from mtl_rank.data.histories import as_lists
from mtl_rank.data.labels import LabelReader, TargetFitter
from mtl_rank.data.vocabulary import Family, Hashed, Lookup, ValueCounter, Vocabulary, as_keys, family_of
from mtl_rank.errors import DataError
from mtl_rank.features.schema import FeatureSchema, Input


def fit_encoder(
    tables: Iterable[pl.DataFrame], schema: FeatureSchema, tasks: Mapping[str, Task], default_dim: Dim
) -> FeatureEncoder:
    """Learn vocabularies, scalers and label statistics from streamed training rows.

    An input that shares another's embedding uses the vocabulary of its owner's own values.
    Raises DataError for columns that do not fit their role, and when there is no row at all.
    """
    dense = {
        spec.name: DenseFitter(spec.options.transform, spec.options.bins)
        for spec in schema.with_role("dense")
    }
    owners = [spec for spec in schema.inputs if spec.role != "dense" and owner_of(spec) == spec.name]
    learners = {spec.name: _IdLearner(spec) for spec in owners}
    reader, targets = LabelReader(tasks), TargetFitter(tasks)
    rows = 0
    for table in tables:
        require_columns(table, schema)
        for spec in schema.inputs:
            if spec.name in dense:
                dense[spec.name].add(as_numbers(table[spec.name], spec.origin))
            elif spec.name in learners:
                learners[spec.name].add(table[spec.name])
        targets.add(reader.read(table))
        rows += table.height
    if rows == 0:
        raise DataError("the training split has no rows; check `split:` against the times of the examples")
    return FeatureEncoder(
        schema=schema,
        tasks=dict(tasks),
        lookups={name: learner.fit() for name, learner in learners.items()},
        scalers={name: fitter.fit() for name, fitter in dense.items()},
        targets=targets.fit(),
        default_dim=default_dim,
    )


class _IdLearner:
    """Learns the lookup of one categorical, sequence or bag input."""

    def __init__(self, spec: Input) -> None:
        self._spec = spec
        self._family: Family | None = None
        self._counter = ValueCounter()

    def add(self, values: pl.Series) -> None:
        if self._spec.role != "categorical":
            values = as_lists(values, self._spec).explode()
        if self._family is None and values.dtype != pl.Null:
            self._family = family_of(values.dtype, self._spec.origin)
        if self._family is not None and self._spec.options.vocab == "learned":
            self._counter.add(as_keys(values, self._family, self._spec.origin))

    def fit(self) -> Lookup:
        options = self._spec.options
        if options.vocab == "hashed":
            return Hashed(self._family or "unknown", options.buckets, salt=self._spec.name)
        if self._family is None:
            # Without one value in training there is no type to go by; every later value is unseen.
            return Vocabulary("unknown", pl.Series([], dtype=pl.Int64))
        return Vocabulary(self._family, self._counter.frequent(options.min_count, options.max_size))
