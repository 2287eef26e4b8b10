"""Parquet files as relations: one file, a folder, hive partitions or a glob."""

import re
from fnmatch import fnmatch
from glob import escape, glob
from pathlib import Path

import duckdb

from mtl_rank.errors import DataError
from mtl_rank.features.relations import Relation, columns_of, nothing_at, readable, stamp

APPENDED = ".appended"
"""Batches written to the source `x.parquet` lie in the folder `x.parquet.appended` beside it."""

_GLOB = re.compile(r"[*?\[]")


def parquet_relation(
    con: duckdb.DuckDBPyConnection, name: str, path: str, base: Path, label: str
) -> Relation:
    """The rows of a parquet file, of a folder or of the files that a glob matches.

    name: a parameter name that nothing else on the connection uses.
    Raises DataError when there is no file or one is damaged.
    """
    files = parquet_files(path, base, label)
    options = f"union_by_name = true, hive_partitioning = {str(_is_hive(base / path, files)).lower()}"
    sql, values = f"read_parquet(${name}, {options})", {name: [escape(file) for file in files]}
    stamps = {file: stamp(file) for file in files}
    with readable(label):
        sizes = con.sql(f"SELECT max(num_rows) FROM parquet_file_metadata(${name})", params=values).fetchall()
        columns = columns_of(con, sql, values)
    bits = max(int(sizes[0][0]) - 1, 0).bit_length()
    position = "s.file_row_number"
    if len(files) > 1:
        position = f"((CAST(s.file_index AS BIGINT) << {bits}) + s.file_row_number)"
    bits += (len(files) - 1).bit_length()
    return Relation(label, sql, columns, position, bits, values, files=stamps)


def parquet_files(path: str, base: Path, label: str) -> list[str]:
    """The files that a path stands for, by name. Raises DataError when there is none, or one vanishes meanwhile."""
    full = base / path
    if full.is_dir():
        with readable(label):
            files = sorted(map(str, full.rglob("*.parquet")))
        problem = f"folder {full} holds no .parquet file"
    elif full.exists() or not is_glob(path):
        files = [str(full)] if full.exists() else []
        files += sorted(map(str, Path(f"{full}{APPENDED}").glob("*.parquet")))
        problem = nothing_at(full)
    else:
        files = sorted(glob(str(full), recursive=True))  # noqa: PTH207, Path.glob takes no absolute pattern
        problem = f"no file matches {full}"
    if not files:
        raise DataError(f"{label}: {problem}")
    return files


def appended_place(path: str, base: Path, label: str) -> tuple[str, list[str]]:
    """The folder in which new files belong to a source, and the columns that are folders in it.

    Raises DataError when the source is a glob that no new file can match.
    """
    full = base / path
    if is_glob(path) and not full.exists():
        folder = fixed_folder(full)
        *folders, name = full.relative_to(folder).parts
        if not fnmatch(f"{'0' * 20}-0-0.parquet", name) or any(part != "**" for part in folders):
            raise DataError(f"{label}: no new file can match {path}; name a folder, or *.parquet in one")
    elif full.is_dir():
        folder = full
    else:
        return f"{path}{APPENDED}", []
    parts = [
        part for file in parquet_files(path, base, label) for part in Path(file).relative_to(folder).parts
    ]
    return str(folder), list(dict.fromkeys(part.split("=")[0] for part in parts[:-1] if "=" in part))


def is_glob(path: str) -> bool:
    """Whether a path has a wildcard in it."""
    return _GLOB.search(path) is not None


def fixed_folder(full: Path) -> Path:
    """The part of a path above every wildcard and above the file name."""
    if full.is_dir():
        return full
    parts = full.parts
    wild = next((i for i, part in enumerate(parts) if is_glob(part)), len(parts) - 1)
    return Path(*parts[:wild])


def _is_hive(full: Path, files: list[str]) -> bool:
    """Folders named `column=value`, below the part of the path that is given: what is above says nothing."""
    folder = fixed_folder(full)
    return any("=" in part for file in files for part in Path(file).relative_to(folder).parts[:-1])
