"""Parquet files written so that a reader never sees half of one, on a local disk or in an object store."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import FileSource
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from mtl_rank.durable import put_folder
from mtl_rank.errors import DataError

ROWS_PER_FILE = 2**22

_PARTIAL = ".partial"


def is_remote(path: str) -> bool:
    """Whether a path is the address of something in an object store, such as s3://bucket/folder."""
    return bool(urlparse(path).netloc)


def place_of(
    path: str, base: Path, endpoint: str | None = None, credentials: dict[str, str] | None = None
) -> tuple[FileSystem, str]:
    """The file system of a path and the path on it. Relative paths start at `base`.

    endpoint, credentials: for S3, as Feast's FileSource gives them.
    """
    if not is_remote(path):
        return LocalFileSystem(), str(base / path)
    filesystem, inside = FileSource.create_filesystem_and_path(path, endpoint or "", credentials)
    return FileSystem.from_uri(path) if filesystem is None else (filesystem, inside)


def add_files(
    data: pa.Table | pa.RecordBatchReader, filesystem: FileSystem, folder: str, hive: Sequence[str] = ()
) -> list[str]:
    """Add rows to a folder, which is created, in new files; what is there stays as it is.

    hive: columns that become folders named `column=value`. Returns the paths of the new files.
    """
    local = isinstance(filesystem, LocalFileSystem)
    written: list[str] = []
    name = _new_name()
    try:
        ds.write_dataset(
            data,
            folder,
            format="parquet",
            filesystem=filesystem,
            partitioning=ds.partitioning(
                pa.schema([data.schema.field(name) for name in hive]), flavor="hive"
            ),
            basename_template=f"{name}-{{i}}.parquet{_PARTIAL if local else ''}",
            existing_data_behavior="overwrite_or_ignore",
            max_rows_per_file=ROWS_PER_FILE,
            file_visitor=lambda file: written.append(file.path),
        )
    except BaseException:
        if local:
            for unfinished in Path(folder).rglob(f"{name}-*{_PARTIAL}"):
                unfinished.unlink()
        raise
    return [_complete(path) for path in written] if local else written


def replace_file(data: pa.RecordBatchReader, path: Path) -> None:
    """Write one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{_new_name()}{_PARTIAL}")
    try:
        with pq.ParquetWriter(partial, data.schema) as writer:
            for batch in data:
                writer.write_batch(batch)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def spooled(data: pa.RecordBatchReader) -> Iterator[pa.RecordBatchReader]:
    """The same rows, all of them read: they lie in a temporary file while the context lasts."""
    with tempfile.TemporaryFile() as file:
        with pa.ipc.new_file(file, data.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            for batch in data:
                writer.write_batch(batch)
        file.seek(0)
        rows = pa.ipc.open_file(file)
        batches = (rows.get_batch(number) for number in range(rows.num_record_batches))
        yield pa.RecordBatchReader.from_batches(rows.schema, batches)


def is_there(filesystem: FileSystem, path: str) -> bool:
    """Whether there is a file, or a folder with files in it."""
    return bool(_files_below(filesystem, path)) or filesystem.get_file_info(path).type == FileType.File


def replace_folder(data: pa.RecordBatchReader, filesystem: FileSystem, folder: str) -> None:
    """Write a folder of files; those that were in it go when the new ones are complete.

    On a local disk a new folder takes the place of the old one, so that no reader finds both. In an object store, which
    has no folders, the old files are deleted after the new ones are there.

    Raises DataError when the folder holds anything but parquet files: it is not a data set then.
    """
    old = _files_below(filesystem, folder)
    foreign = [path for path in old if not path.endswith((".parquet", _PARTIAL))]
    if foreign:
        raise DataError(f"{folder} will not be overwritten: {foreign[0]} is no parquet file")
    if isinstance(filesystem, LocalFileSystem):
        _replace_local_folder(data, filesystem, Path(folder).resolve())
        return
    add_files(data, filesystem, folder)
    for path in old:
        filesystem.delete_file(path)


def _replace_local_folder(data: pa.RecordBatchReader, filesystem: FileSystem, folder: Path) -> None:
    new, gone = (folder.with_name(f".{folder.name}.{_new_name()}{_PARTIAL}") for _ in range(2))
    try:
        new.mkdir(parents=True)
        add_files(data, filesystem, str(new))
        put_folder(new, folder, gone)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _files_below(filesystem: FileSystem, folder: str) -> list[str]:
    found = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
    return [info.path for info in found if info.type == FileType.File]


def _new_name() -> str:
    """A name that no other call uses and that sorts after those of earlier calls."""
    return f"{time.time_ns():020d}-{uuid4().hex[:8]}"


def _complete(path: str) -> str:
    return str(Path(path).rename(path.removesuffix(_PARTIAL)))
