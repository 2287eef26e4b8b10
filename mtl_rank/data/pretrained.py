"""Embeddings that start from vectors made elsewhere, such as the items of a retrieval model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch
from polars.exceptions import PolarsError

from mtl_rank.config.model import Pretrained
from mtl_rank.data.encoder import FeatureEncoder, owner_of
from mtl_rank.data.vocabulary import FIRST, Hashed, as_keys
from mtl_rank.errors import ConfigError, DataError
from mtl_rank.nn.embedding import Vectors
from mtl_rank.nn.layout import IdColumn, SequenceColumn
from mtl_rank.progress import Reporter


def check_pretrained(pretrained: Mapping[str, Pretrained], project: Path) -> None:
    """Raises DataError for a file that cannot be read or has other than a column of keys and one of lists."""
    for name, options in pretrained.items():
        _columns(name, project / options.path)


def read_pretrained(
    pretrained: Mapping[str, Pretrained], project: Path, encoder: FeatureEncoder, reporter: Reporter
) -> list[Vectors]:
    """The vectors of every input that has some; says how many of its values they cover.

    Raises ConfigError for an input that cannot have any, DataError for keys or widths that do not fit.
    """
    return [
        _read(name, options, project / options.path, encoder, reporter)
        for name, options in pretrained.items()
    ]


def _read(name: str, options: Pretrained, path: Path, encoder: FeatureEncoder, reporter: Reporter) -> Vectors:
    column, origin = _column(name, encoder), f"model.pretrained.{name}: {path}"
    lookup = encoder.lookups[name]
    if isinstance(lookup, Hashed):
        raise ConfigError(
            f"model.pretrained.{name}: its values are hashed and share rows; take vocab: learned for it"
        )
    keys_name, vectors_name = _columns(name, path)
    table = pl.read_parquet(path)
    keys = as_keys(table[keys_name], lookup.family, origin)
    values = _matrix(table[vectors_name], encoder.layout.dims[column.table], origin)
    if keys.null_count() or keys.n_unique() != len(keys):
        raise DataError(f"{origin}: column {keys_name!r} must hold every key once, none missing")
    local = lookup.ids(keys)
    known = local >= FIRST
    if not known.any():
        raise DataError(
            f"{origin}: none of its {len(keys)} keys is a value of {name} in training; check column {keys_name!r}"
        )
    reporter.say(f"{name}: vectors for {known.sum():,} of {lookup.size - FIRST:,} values")
    return Vectors(
        table=column.table,
        rows=torch.from_numpy(local[known].astype(np.int64) + column.offset),
        values=torch.from_numpy(values[known]),
        block=(column.offset, column.offset + column.size),
        frozen=options.frozen,
    )


def _columns(name: str, path: Path) -> tuple[str, str]:
    """Names of the columns of keys and of vectors."""
    origin = f"model.pretrained.{name}: {path}"
    try:
        schema = pl.read_parquet_schema(path)
    except (OSError, PolarsError) as error:
        raise DataError(f"{origin} cannot be read: {str(error).splitlines()[0]}") from None
    lists = [column for column, dtype in schema.items() if isinstance(dtype, pl.List | pl.Array)]
    if len(schema) != 2 or len(lists) != 1:
        raise DataError(
            f"{origin}: needs one column of keys and one of lists of numbers, it has {', '.join(schema)}"
        )
    (keys,) = set(schema) - set(lists)
    return keys, lists[0]


def _matrix(vectors: pl.Series, dim: int, origin: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    lists = vectors.arr.to_list() if isinstance(vectors.dtype, pl.Array) else vectors
    widths = lists.list.len().unique().to_list()
    if widths != [dim]:
        found = " or ".join("missing" if width is None else str(width) for width in widths) or "none"
        raise DataError(
            f"{origin}: the embedding is {dim} wide, its vectors {found}; set the input's dim, or model.dim"
        )
    flat = lists.explode()
    if not flat.dtype.is_numeric() or flat.null_count() or not flat.cast(pl.Float32).is_finite().all():
        raise DataError(f"{origin}: a vector holds something that is not a finite number")
    return flat.cast(pl.Float32).to_numpy().reshape(-1, dim)


def _column(name: str, encoder: FeatureEncoder) -> IdColumn | SequenceColumn:
    layout = encoder.layout
    spec = next(spec for spec in encoder.schema.inputs if spec.name == name)
    if name not in encoder.lookups:
        owner = owner_of(spec)
        what = f"it shares the embedding of {owner}; name that one" if owner != name else "it is a number"
        raise ConfigError(f"model.pretrained.{name}: {what}")
    columns: list[IdColumn | SequenceColumn] = [*layout.ids, *layout.sequences]
    return next(column for column in columns if column.name == name)
