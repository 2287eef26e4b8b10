"""Where scores can go, chosen by what the user wrote: a DuckDB file, a parquet file, or a folder of them."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pyarrow as pa

from mtl_rank.errors import ConfigError
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk, Details, JobState
from mtl_rank.scoring.parquet_sink import ParquetSink
from mtl_rank.scoring.parquet_target import ParquetTarget, parquet_jobs
from mtl_rank.scoring.sink import DuckDBSink, jobs
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget

Target = ScoresTarget | ParquetTarget


class Sink(Protocol):
    """Takes the chunks of one job, each exactly once; `DuckDBSink` says what the methods promise."""

    run_id: str
    job_id: str
    schema: ScoresSchema
    details: Details

    @property
    def finished(self) -> bool: ...
    @property
    def committed(self) -> Mapping[int, Chunk]: ...
    def commit(
        self, chunk: Chunk, scores: pa.Table | pa.RecordBatch, details: Details | None = None
    ) -> bool: ...
    def finish(self, chunks: int, details: Details | None = None) -> None: ...
    def chunk_details(self) -> list[Details]: ...
    def jobs(self) -> list[JobState]: ...
    def state(self, limit: float | None = None) -> JobState | None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_target(to: Path | str, table: str | None = None) -> Target:
    """`name.parquet` is one file; a folder, or a path that ends with a slash, is a folder of files by day; anything
    else is a DuckDB file. table: of a DuckDB file, None = scores.

    Raises:
        ConfigError: a table of something that has none.
    """
    path = Path(to)
    is_folder = str(to).endswith(("/", os.sep)) or path.is_dir()
    if not is_folder and path.suffix != ".parquet":
        return ScoresTarget(path, "scores" if table is None else table)
    if table is not None:
        raise ConfigError(f"--table {table}: only a DuckDB file has tables, {to} is parquet")
    # What is published takes the place of a name: it must be the name of the scores and not a link to them.
    return ParquetTarget(path.resolve() if path.is_symlink() else path, is_folder)


def open_sink(
    target: Target,
    schema: ScoresSchema,
    *,
    run_id: str,
    job_id: str,
    replace: bool,
    patience: Patience,
    details: Details,
) -> Sink:
    """The sink that writes a job to a target; it has not begun."""
    sink = ParquetSink if isinstance(target, ParquetTarget) else DuckDBSink
    return sink(
        target,  # type: ignore[arg-type]
        schema,
        run_id=run_id,
        job_id=job_id,
        replace=replace,
        patience=patience,
        details=details,
    )


def list_jobs(target: Target) -> list[JobState]:
    """All jobs of a target, the last one at work first; also while one of them runs.

    Raises:
        ScoresError: there is no such target, or it is something else.
    """
    return parquet_jobs(target) if isinstance(target, ParquetTarget) else jobs(target)
