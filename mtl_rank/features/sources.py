"""Feast data sources as DuckDB relations: files, folders, globs, hive partitions, Delta tables, DuckDB tables.

Relative paths start at the feature repository. Nanosecond timestamps become microseconds here, once, so that nothing
downstream meets a type that Feast cannot read.
"""

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource

from mtl_rank.errors import DataError, did_you_mean
from mtl_rank.features.sql import quote

_GLOB = set("*?[")
_NANOSECONDS = {
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMPTZ_NS": "TIMESTAMPTZ",
    "TIMESTAMP WITH TIME ZONE_NS": "TIMESTAMPTZ",
}


@dataclass(frozen=True)
class Table:
    """A relation registered on a connection: its name, and its columns with their DuckDB types."""

    name: str
    columns: Mapping[str, str]


def register(con: duckdb.DuckDBPyConnection, name: str, relation: duckdb.DuckDBPyRelation) -> Table:
    """Give a relation a name on its connection, with timestamps in microseconds."""
    columns = dict(zip(relation.columns, map(str, relation.types), strict=True))
    coarse = {
        column: "TIMESTAMPTZ" if "TZ" in kind else "TIMESTAMP"
        for column, kind in columns.items()
        if kind.endswith("_NS")
    }
    if coarse:
        casts = (
            f"CAST({quote(column)} AS {coarse[column]}) AS {quote(column)}"
            if column in coarse
            else quote(column)
            for column in columns
        )
        relation = relation.project(", ".join(casts))
        columns |= coarse
    relation.create_view(name)
    return Table(name, columns)


def read_source(con: duckdb.DuckDBPyConnection, name: str, source: DataSource, repo_path: Path) -> Table:
    """Register a Feast data source under `name`.

    Raises DataError when it does not exist, holds no rows to read or cannot be read.
    """
    where = f"source {source.name!r}"
    for kind, read in _READERS.items():
        if isinstance(source, kind):
            try:
                return register(con, name, read(con, source, repo_path))
            except duckdb.Error as error:
                raise DataError(f"{where}: cannot read it: {first_line(error)}") from error
    known = ", ".join(kind.__name__ for kind in _READERS)
    raise DataError(
        f"{where} is a {type(source).__name__}, which this offline store cannot read. It reads: {known}"
    )


def read_parquet(
    con: duckdb.DuckDBPyConnection, path: str, base: Path, where: str
) -> duckdb.DuckDBPyRelation:
    """A parquet file, a folder of them (hive-partitioned or not) or a glob. Raises DataError when nothing is there."""
    return con.read_parquet(parquet_files(path, base, where), hive_partitioning=True, union_by_name=True)


def parquet_files(path: str, base: Path, where: str) -> list[str]:
    """The glob patterns, absolute, that a path stands for. Raises DataError when no file matches."""
    full = base / path
    if full.is_dir():
        patterns = [f"{glob.escape(str(full))}/**/*.parquet"]
    elif full.exists() or not _GLOB & set(path):
        patterns = [glob.escape(str(full))]
    else:
        patterns = [str(full)]
    if not any(True for pattern in patterns for _ in glob.iglob(pattern, recursive=True)):
        what = "holds no .parquet file" if full.is_dir() else "does not exist"
        raise DataError(f"{where}: {full} {what}. {did_you_mean_file(full)}".rstrip())
    return patterns


def did_you_mean_file(path: Path) -> str:
    """The nearest file of the same folder, as a sentence, or nothing."""
    if not path.parent.is_dir():
        return f"There is no folder {path.parent}"
    names = [entry.name for entry in path.parent.iterdir()]
    return did_you_mean(path.name, names).capitalize() if names else ""


def first_line(error: BaseException) -> str:
    """What an error of DuckDB says, without its trace."""
    return str(error).strip().splitlines()[0]


def _read_file_source(
    con: duckdb.DuckDBPyConnection, source: Any, repo_path: Path
) -> duckdb.DuckDBPyRelation:
    if isinstance(source.file_format, DeltaFormat):
        return _read_delta(con, source, repo_path)
    return read_parquet(con, source.path, repo_path, f"source {source.name!r}")


def _read_delta(con: duckdb.DuckDBPyConnection, source: Any, repo_path: Path) -> duckdb.DuckDBPyRelation:
    raise NotImplementedError


_READERS: dict[type, Callable[[duckdb.DuckDBPyConnection, Any, Path], duckdb.DuckDBPyRelation]] = {
    FileSource: _read_file_source,
}
