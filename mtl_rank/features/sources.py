"""Feast data sources as relations: one reader per kind of source. Relative paths start at the repository."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource

from mtl_rank.errors import DataError
from mtl_rank.features.duckdb_source import DuckDBSource, duckdb_relation
from mtl_rank.features.files import is_remote, place_of
from mtl_rank.features.parquet import parquet_relation
from mtl_rank.features.relations import Relation, columns_of, readable
from mtl_rank.features.relations import first_line as first_line
from mtl_rank.features.sql import quote


def read_source(
    con: duckdb.DuckDBPyConnection, name: str, source: DataSource | None, base: Path, label: str
) -> Relation:
    """A Feast data source as a relation on a connection. No rows are read.

    name: a name, unique on the connection, for what has to be registered there.
    label: what a message calls the source, such as "feature view 'user_stats'".
    Raises DataError when the source does not exist or cannot be read.
    """
    for kind, read in _READERS.items():
        if isinstance(source, kind):
            return read(con, name, source, base, label)
    known = ", ".join(kind.__name__ for kind in _READERS)
    raise DataError(f"{label}: this offline store cannot read a {type(source).__name__}; it reads: {known}")


def _read_file(
    con: duckdb.DuckDBPyConnection, name: str, source: FileSource, base: Path, label: str
) -> Relation:
    if isinstance(source.file_format, DeltaFormat):
        return _arrow_relation(con, name, lambda: _delta_dataset(source, base, label), label)
    if is_remote(source.path):
        return _arrow_relation(con, name, lambda: _remote_dataset(source), label)
    return parquet_relation(con, name, source.path, base, label)


def _arrow_relation(
    con: duckdb.DuckDBPyConnection, name: str, open_dataset: Callable[[], ds.Dataset], label: str
) -> Relation:
    with readable(label):
        con.register(name, open_dataset())
        return Relation(label, quote(name), columns_of(con, quote(name), {}))


def _remote_dataset(source: FileSource) -> ds.Dataset:
    filesystem, path = place_of(
        source.path, Path(), source.s3_endpoint_override, source.resolve_credentials()
    )
    return ds.dataset(path, filesystem=filesystem, format="parquet", partitioning="hive")


def delta_place(source: FileSource, base: Path) -> tuple[str, dict[str, str] | None]:
    """The address of a Delta table and the storage options that `deltalake` needs for it."""
    options = dict(source.resolve_credentials() or {})
    if source.s3_endpoint_override:
        options["AWS_ENDPOINT_URL"] = source.s3_endpoint_override
    return source.path if is_remote(source.path) else str(base / source.path), options or None


def _delta_dataset(source: FileSource, base: Path, label: str) -> ds.Dataset:
    try:
        from deltalake import DeltaTable  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise DataError(f"{label}: its source is a Delta table; install `deltalake` to read it") from error
    path, options = delta_place(source, base)
    return DeltaTable(path, storage_options=options).to_pyarrow_dataset()


_READERS: dict[type, Callable[[duckdb.DuckDBPyConnection, str, Any, Path, str], Relation]] = {
    FileSource: _read_file,
    DuckDBSource: duckdb_relation,
}
