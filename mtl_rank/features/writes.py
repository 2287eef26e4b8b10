"""What an offline store writes: batches added to a source, logs of served features, saved datasets."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingDestination
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from pyarrow.fs import LocalFileSystem

from mtl_rank.errors import DataError
from mtl_rank.features.duckdb_source import DuckDBSource, attach, tables_of
from mtl_rank.features.files import (
    add_files,
    is_remote,
    is_there,
    place_of,
    replace_file,
    replace_folder,
    spooled,
)
from mtl_rank.features.parquet import appended_place
from mtl_rank.features.relations import PANDAS_INDEX, arrow_schema, readable
from mtl_rank.features.sources import delta_place, read_source
from mtl_rank.features.sql import Engine, quote


@dataclass(frozen=True)
class Places:
    """Where results can go.

    base: the folder in which relative paths start.
    staging: the folder for to_remote_storage, of an object store or local; staging_endpoint: its S3 endpoint.
    """

    base: Path
    staging: str | None = None
    staging_endpoint: str | None = None


def append_batch(table: pa.Table, source: DataSource, base: Path, label: str) -> None:
    """Add rows to a source: a file more, or rows of a DuckDB table. What is there is not read or rewritten.

    table: the columns of the source, in any order, under its own names or those that field mappings give them.
    Raises DataError when the columns or their types do not fit, or the source cannot take rows.
    """
    if isinstance(source, DuckDBSource):
        _insert(_fitting(table, source, base, label), source, base, label)
    elif not isinstance(source, FileSource):
        raise DataError(f"{label}: rows cannot be added to a {type(source).__name__}")
    elif isinstance(source.file_format, DeltaFormat):
        _write_delta(table, source, base, label, mode="append")
    else:
        folder: str = source.path
        hive: list[str] = []
        if is_remote(source.path):
            if source.path.endswith(".parquet"):
                raise DataError(f"{label}: no rows can be added to the one file {source.path}; use a folder")
        else:
            folder, hive = appended_place(source.path, base, label)
        filesystem, inside = place_of(folder, base, source.s3_endpoint_override, source.resolve_credentials())
        add_files(_fitting(table, source, base, label), filesystem, inside, hive)


def write_logs(logs: pa.Table | Path, destination: LoggingDestination, base: Path) -> None:
    """Add logs of served features, a table or a folder of parquet files, to their destination."""
    if not isinstance(destination, FileLoggingDestination):
        raise DataError(f"logs: this offline store writes to files, not to a {type(destination).__name__}")
    if isinstance(logs, Path):
        logs = ds.dataset(logs, format="parquet").to_table()
    filesystem, folder = place_of(destination.path, base, destination.s3_endpoint_override)
    add_files(logs, filesystem, folder, destination.partition_by or [])


def save(data: pa.RecordBatchReader, target: DataSource, base: Path, *, overwrite: bool) -> None:
    """Write a saved dataset, as a stream. What it replaces goes when the new rows are complete.

    Raises SavedDatasetLocationAlreadyExists when something is there and `overwrite` is False.
    """
    label = f"saved dataset {target.name!r}"
    if isinstance(target, DuckDBSource):
        _create_table(data, target, base, label, overwrite=overwrite)
    elif not isinstance(target, FileSource):
        raise DataError(f"{label}: this offline store cannot write a {type(target).__name__}")
    elif isinstance(target.file_format, DeltaFormat):
        _write_delta(data, target, base, label, mode="overwrite" if overwrite else "error")
    elif is_remote(target.path):
        place = place_of(target.path, base, target.s3_endpoint_override, target.resolve_credentials())
        if is_there(*place) and not overwrite:
            raise SavedDatasetLocationAlreadyExists(location=target.path)
        replace_folder(data, *place)
    else:
        path = base / target.path
        if path.exists() and not overwrite:
            raise SavedDatasetLocationAlreadyExists(location=target.path)
        if path.suffix == ".parquet" and not path.is_dir():
            replace_file(data, path)
        else:
            replace_folder(data, LocalFileSystem(), str(path))


def stage(data: pa.RecordBatchReader, places: Places) -> list[str]:
    """Write a result to a new folder of the staging place; the addresses of its files."""
    folder = f"{places.staging}/{uuid4().hex}"
    filesystem, inside = place_of(folder, places.base, places.staging_endpoint)
    scheme = f"{urlparse(folder).scheme}://" if is_remote(folder) else ""
    return [f"{scheme}{path}" for path in add_files(data, filesystem, inside)]


def _fitting(table: pa.Table, source: DataSource, base: Path, label: str) -> pa.Table:
    """The table with the columns of the source, in their order and of their types."""
    with closing(Engine().connect()) as con:
        schema = arrow_schema(con, read_source(con, "source", source, base, label))
    own = {new: old for old, new in source.field_mapping.items() if old in schema.names}
    given = {
        own.get(name, name): table[name] for name in table.column_names if not name.startswith(PANDAS_INDEX)
    }
    missing, extra = sorted(set(schema.names) - set(given)), sorted(set(given) - set(schema.names))
    if missing or extra:
        raise DataError(
            f"{label}: rows to add do not fit its source: missing {missing}, not in the source {extra}"
        )
    columns = []
    for field in schema:
        try:
            options = pc.CastOptions(field.type, allow_time_truncate=True)
            columns.append(pc.cast(given[field.name], options=options))
        except pa.ArrowException as error:
            raise DataError(f"{label}: column {field.name!r} cannot become {field.type}: {error}") from error
    return pa.table(columns, schema=schema)


def _insert(table: pa.Table, source: DuckDBSource, base: Path, label: str) -> None:
    if source.table is None:
        raise DataError(f"{label}: rows cannot be added to a query; name a table")
    with readable(label), closing(Engine().connect()) as con:
        attach(con, "target", source, base, label, write=True)
        con.register("new rows", table)
        target, _ = tables_of(con, "target")[source.table]
        con.execute(f"INSERT INTO {target} BY NAME SELECT * FROM {quote('new rows')}")


def _create_table(
    data: pa.RecordBatchReader, target: DuckDBSource, base: Path, label: str, *, overwrite: bool
) -> None:
    schema, _, table = (target.table or "").rpartition(".")
    schema = schema or "main"
    with spooled(data) as rows, readable(label), closing(Engine().connect()) as con:
        # Not before all rows are there: they may come from this very file, and DuckDB opens it once.
        attach(con, "target", target, base, label, write=True)
        if f"{schema}.{table}" in tables_of(con, "target") and not overwrite:
            raise SavedDatasetLocationAlreadyExists(location=f"{target.path}:{target.table}")
        con.register("new rows", rows)
        place = f"{quote('target')}.{quote(schema)}"
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {place}")
        con.execute(f"CREATE OR REPLACE TABLE {place}.{quote(table)} AS SELECT * FROM {quote('new rows')}")


def _write_delta(
    data: pa.Table | pa.RecordBatchReader,
    target: FileSource,
    base: Path,
    label: str,
    mode: Literal["error", "append", "overwrite"],
) -> None:
    try:
        from deltalake import DeltaTable, write_deltalake  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise DataError(f"{label}: it is a Delta table; install `deltalake` to write it") from error
    path, options = delta_place(target, base)
    if mode == "error" and DeltaTable.is_deltatable(path, storage_options=options):
        raise SavedDatasetLocationAlreadyExists(location=target.path)
    # Not as a stream: deltalake can open no Delta source while it writes.
    table = data if isinstance(data, pa.Table) else data.read_all()
    write_deltalake(path, table, mode=mode, storage_options=options)
