"""Which columns tell rows apart: users, slices, what training has never met."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from feast.types import Array

from mtl_rank.config import ProjectConfig
from mtl_rank.data.encoder import FeatureEncoder, owner_of
from mtl_rank.data.vocabulary import MISSING, UNSEEN, Vocabulary, as_keys
from mtl_rank.errors import ConfigError, DataError, did_you_mean
from mtl_rank.features.entity_rows import read_rows
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.schema import FeatureSchema
from mtl_rank.features.snapshot import EVENT_TIMESTAMP
from mtl_rank.features.sources import first_line
from mtl_rank.features.sql import Engine

IDENTITY = "identity"
_FILE = re.compile(r"[^\s'\"()*?\[:]+\.\w+")
_NO_VALUES = ("INTERVAL", "STRUCT", "MAP", "UNION", "BLOB", "BIT")


@dataclass(frozen=True)
class SliceColumns:
    """names: as the user wrote them -> column of the retrieved table. of_rows: those that the examples bring."""

    names: Mapping[str, str]
    of_rows: Sequence[str]


def gauc_key(config: ProjectConfig, schema: FeatureSchema) -> str:
    """The column whose rows GAUC ranks against each other: `user_key`, or the first join key."""
    if config.user_key is not None:
        return config.user_key
    if not schema.join_keys:
        raise ConfigError(
            "user_key: name the column that tells users apart; the feature service has no join key"
        )
    return schema.join_keys[0]


def item_key(config: ProjectConfig, schema: FeatureSchema) -> str | None:
    """The join key of what is ranked: the first one that is not the user's."""
    others = [key for key in schema.join_keys if key != gauc_key(config, schema)]
    return others[0] if others else None


def columns_of_rows(rows: Any, project: Path) -> Mapping[str, str]:
    """Columns of labelled rows with their DuckDB types. Raises DataError when they cannot be read."""
    check_rows(rows, project)
    with closing(Engine(search_path=project).connect()) as con:
        try:
            return read_rows(con, "rows", rows, project).columns
        except duckdb.Error as error:
            raise DataError(f"{rows}: {first_line(error)}") from None


def check_rows(rows: Any, project: Path) -> None:
    """Raises DataError for the path of a file that is neither parquet nor SQL, which DuckDB would try to parse."""
    if not isinstance(rows, str):
        return
    text = rows.strip()
    is_file = os.path.isfile(project / text)  # noqa: PTH113, a SELECT may be too long for a path
    if text.endswith(".parquet") or not (is_file or _FILE.fullmatch(text)):
        return
    if text.endswith((".duckdb", ".ddb", ".db")):
        raise DataError(f"{text}: name a table of it, {text}:TABLE")
    raise DataError(f"{text}: a parquet path is wanted, or one SELECT, such as \"SELECT * FROM '{text}'\"")


def check_slice(name: str, kind: str) -> None:
    """kind: a DuckDB type. Raises DataError for lists and the like, by whose values no row can be told apart."""
    if kind.endswith("]") or kind.split("(")[0] in _NO_VALUES:
        raise DataError(f"--by {name}: the column is {kind}; rows are told apart by text, numbers or times")


def slice_columns(by: Sequence[str], rows: Mapping[str, str], repository: FeatureRepository) -> SliceColumns:
    """Find columns among the features, as view__feature, and those of the examples.

    Raises DataError naming the nearest column, or the type of one that tells no rows apart.
    """
    features = {
        f"{projection.name_to_use()}__{feature.name}": feature.dtype
        for projection in repository.service.feature_view_projections
        for feature in projection.features
    }
    for name in by:
        if name not in features and name not in rows:
            known = sorted({*features, *rows})
            raise DataError(
                f"--by {name}: neither the examples nor the features have it; {did_you_mean(name, known)}"
            )
        if name not in features:
            check_slice(name, rows[name])
        elif isinstance(features[name], Array):
            check_slice(name, f"{features[name].base_type}[]")
    return SliceColumns({name: name for name in by}, [name for name in by if name not in features])


def identities(table: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    """A hash of the keys and the time of each row: 8 bytes, by which repeated rows are counted.

    Of ten million rows two different ones share a hash with a chance of 1 : 300,000.
    """
    return table.select(*keys, EVENT_TIMESTAMP).hash_rows()


def cold_columns(encoder: FeatureEncoder, table: pl.DataFrame) -> dict[str, pl.Series]:
    """`cold KEY` for every join key with a learned vocabulary: whether training gave it no embedding of its own.

    Null where there is no key: that is neither cold nor known.
    """
    found = {}
    for spec in encoder.schema.inputs:
        if spec.name not in encoder.schema.join_keys or spec.name not in table.columns:
            continue
        lookup = encoder.lookups[owner_of(spec)]
        if isinstance(lookup, Vocabulary):
            ids = lookup.ids(as_keys(table[spec.name], lookup.family, spec.origin))
            found[f"cold {spec.name}"] = pl.select(
                pl.when(pl.Series(ids != MISSING)).then(pl.Series(ids == UNSEEN))
            ).to_series()
    return found
