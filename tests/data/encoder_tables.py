"""Schemas, tables and encoders of a few lines."""

import polars as pl

from mtl_rank.config import InputOptions, Task
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.features.schema import FeatureSchema, Input

CLICK = {"ctr": Task(label="clicked")}


def schema_of(**inputs):
    """`age={"role": "dense", "bins": 4}`: the options of each input, min_count 1 unless said."""
    specs = []
    for name, options in inputs.items():
        role = options.get("role", "categorical")
        rest = {"min_count": 1} | {key: value for key, value in options.items() if key != "role"}
        specs.append(Input(name=name, origin=f"view.{name}", role=role, options=InputOptions(**rest)))
    return FeatureSchema(service="ranking", join_keys=(), request_columns=(), inputs=tuple(specs))


def with_labels(table):
    """The table and a label that is 0, 1, 0, 1 ..."""
    return table.with_columns(clicked=pl.int_range(pl.len()) % 2)


def table_of(**columns):
    """A labelled table of at least two rows, so that both classes occur."""
    return with_labels(pl.DataFrame(columns))


def fitted(tables, dim=4, tasks=CLICK, **inputs):
    """An encoder fitted on one table or a list of them."""
    tables = [tables] if isinstance(tables, pl.DataFrame) else tables
    return fit_encoder(tables, schema_of(**inputs), tasks, dim)


def ids_of(encoder, table, name):
    """Ids of one column within its own range, as a list: 0 missing, 1 unseen."""
    position, column = next((i, c) for i, c in enumerate(encoder.layout.ids) if c.name == name)
    return (encoder.encode(table, with_labels=False).ids[:, position] - column.offset).tolist()


def one_column_ids(training, serving, **options):
    """Ids of `serving` under the vocabulary of `training`, both Series or lists."""
    training = pl.Series("value", training)
    if len(training) < 2:
        training = pl.concat([training, pl.Series([None] * 2, dtype=training.dtype)])
    encoder = fitted(table_of(value=training), value=options)
    return ids_of(encoder, pl.DataFrame({"value": serving}), "value")


def assert_same_rows(left, right):
    """Equal EncodedRows, bit for bit."""
    assert (left.weights is None) == (right.weights is None)
    arrays = [
        (
            rows.ids,
            rows.dense,
            *rows.sequences,
            rows.labels,
            *([] if rows.weights is None else [rows.weights]),
        )
        for rows in (left, right)
    ]
    for a, b in zip(*arrays, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()
