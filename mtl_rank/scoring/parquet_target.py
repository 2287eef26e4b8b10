"""Scores in parquet and the jobs that are in them: every file says itself which job wrote it."""

import glob
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_rank.durable import PARTIAL, appearing
from mtl_rank.errors import ScoresError
from mtl_rank.features.sql import Engine
from mtl_rank.scoring.holder import Holder
from mtl_rank.scoring.ledger import Chunk, JobState
from mtl_rank.scoring.publish import remove_tree, try_lock

NOTE = "mtlrank"
DATE = "date"
_JOB_FILE = "job.json"
_LOCK = ".lock"
_LOOKS, _PAUSE = 100, 0.02
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class ParquetTarget:
    """One parquet file, or a folder with a folder `date=2026-03-31` per day of the event timestamps."""

    path: Path
    is_folder: bool

    def __str__(self) -> str:
        return str(self.path)

    @property
    def work(self) -> Path:
        """Where jobs that are not finished keep their chunks."""
        return self.path.with_name(f".{self.path.name}.jobs")

    @property
    def publish_lock(self) -> Path:
        """Held by whoever changes which files are there."""
        return self.work / "publish.lock"

    @property
    def away(self) -> Path:
        """Where a folder is while another takes its place, on file systems that cannot exchange two."""
        return self.work / "moved-away"

    def files(self) -> list[Path]:
        """The files of scores that are there.

        Raises:
            ScoresError: the path is something else, or holds files that no job wrote.
        """
        return _steady(self, self._files)

    def _files(self) -> list[Path]:
        if not self.path.exists():
            return []
        if self.path.is_file() if self.is_folder else self.path.is_dir():
            raise ScoresError(f"{self.path} is {'no' if self.is_folder else 'a'} folder: choose another path")
        if not self.is_folder:
            return [self.path]
        found = sorted(_files_below(self.path))
        foreign = [path for path in found if path.suffix != ".parquet" or job_of_file(path) is None]
        if foreign:
            raise ScoresError(
                f"{self.path} holds {foreign[0].relative_to(self.path)}, which are no scores: name an empty folder"
            )
        return found


@dataclass(frozen=True)
class JobFolder:
    """The working folder of one job."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path.with_suffix(_LOCK)

    def begin(self, note: Mapping[str, Any], holder: Holder) -> None:
        """Make the folder, and say in it what the job is and who works on it."""
        self.path.mkdir(exist_ok=True)
        for partial in self.path.glob(f"*{PARTIAL}"):
            partial.unlink()
        document = json.dumps({**note, "holder": asdict(holder)})
        with appearing(self.path / _JOB_FILE) as new:
            new.write_text(document, encoding="utf-8")

    def note(self) -> dict[str, Any] | None:
        """What `begin` said; None when the job was killed before, or has ended meanwhile."""
        try:
            found: dict[str, Any] = json.loads((self.path / _JOB_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def chunk_file(self, number: int) -> Path:
        return self.path / f"chunk-{number:06d}.parquet"

    def chunks(self) -> dict[int, tuple[Chunk, dict[str, Any]]]:
        """The committed chunks by number, with what was said of each."""
        found = {}
        for path in sorted(self.path.glob("chunk-*.parquet")):
            note = read_note(path)
            assert note is not None
            chunk = Chunk(**note["chunk"])
            found[chunk.number] = (chunk, note["details"])
        return found


def remove_abandoned(target: ParquetTarget) -> None:
    """Remove what jobs left that nobody works on; one that is run again begins anew."""
    locks = {path.with_suffix(_LOCK) for path in target.work.iterdir()}
    for lock in locks - {target.publish_lock, target.away.with_suffix(_LOCK)}:
        try:
            held = try_lock(lock)
        except BlockingIOError:
            continue
        remove_tree(lock.with_suffix(""))
        lock.unlink(missing_ok=True)
        os.close(held)


def job_of_file(path: Path) -> str | None:
    """The job that wrote a file of a folder, from its name `<job>-0.parquet`; None when that is no such name."""
    job_id, dash, number = path.stem.rpartition("-")
    return job_id if dash and number.isdecimal() else None


def read_note(path: Path) -> dict[str, Any] | None:
    """What a file says of itself; None when it was not written by a job.

    Raises:
        ScoresError: it is no parquet file.
        FileNotFoundError: it is gone.
    """
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise ScoresError(f"{path} is no parquet file: {str(error).splitlines()[0]}") from None
    text = metadata.get(NOTE.encode())
    note: dict[str, Any] | None = None if text is None else json.loads(text)
    return note


def published(target: ParquetTarget) -> dict[str, JobState]:
    """The finished jobs whose scores are there, by id.

    Raises:
        ScoresError: something there is no scores.
    """
    return _steady(target, lambda: _published(target))


def _steady(target: ParquetTarget, look: Callable[[], _Found]) -> _Found:
    """What `look` finds at a moment when no job publishes between its look at the names and that at the files.

    Raises:
        ScoresError: there is no such moment: again and again `look` raised FileNotFoundError.
    """
    for _ in range(_LOOKS):
        with suppress(FileNotFoundError):
            return look()
        time.sleep(_PAUSE)
    raise ScoresError(
        f"{target.path} has a file that cannot be opened, or changes all the time; look at its files"
    )


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Raises FileNotFoundError when it, or one in it, vanishes meanwhile."""
    with os.scandir(folder) as entries:
        for entry in entries:
            # What an entry is was read with its name: asked for by its path, one that vanished would be no file.
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(Path(entry.path))
            else:
                yield Path(entry.path)


def _published(target: ParquetTarget) -> dict[str, JobState]:
    found: dict[str, JobState] = {}
    for path in target.files():
        if target.is_folder and job_of_file(path) in found:
            continue
        note = read_note(path)
        if note is None:
            raise ScoresError(f"{path} was not written by mtl_rank: choose another path")
        job = JobState(
            job_id=note["job_id"],
            run_id=note["run_id"],
            state="finished",
            replace=note["replace"],
            chunks=note["chunks"],
            rows=note["rows"],
            updated_at=datetime.fromisoformat(note["finished_at"]),
            holder=None,
            details=note["details"],
        )
        found[job.job_id] = job
    return found


def columns_there(target: ParquetTarget) -> dict[str, str] | None:
    """The columns of the newest scores that are there, with their DuckDB types; None where there are none.

    Raises:
        ScoresError: as `published`.
        duckdb.Error: the newest file is damaged.
    """
    return _steady(target, lambda: _columns_there(target))


def _columns_there(target: ParquetTarget) -> dict[str, str] | None:
    files = target.files()
    if not files:
        return None
    try:
        with Engine().connect() as con:
            newest = con.read_parquet(glob.escape(str(files[-1])), hive_partitioning=False)
            return dict(zip(newest.columns, map(str, newest.types), strict=True))
    except duckdb.IOException:
        if files[-1].exists():
            raise
        raise FileNotFoundError(files[-1]) from None


def parquet_jobs(target: ParquetTarget) -> list[JobState]:
    """All jobs whose scores are there or under way, the last one at work first.

    Raises:
        ScoresError: there is nothing, or something else.
    """
    # In this order: the work of the first job ends where its scores appear.
    if not target.work.exists() and not target.path.exists():
        raise ScoresError(f"{target.path} does not exist")
    # In this order a job that ends meanwhile is seen twice, and not never.
    working = {job.job_id: job for job in _working(target)}
    return sorted((working | published(target)).values(), key=lambda job: job.updated_at, reverse=True)


def _working(target: ParquetTarget) -> Iterator[JobState]:
    try:
        names = [entry.name for entry in os.scandir(target.work) if entry.is_dir()]
    except FileNotFoundError:
        # The last job at work takes its folder away.
        return
    for path in map(target.work.joinpath, names):
        folder = JobFolder(path)
        try:
            note = folder.note()
            if note is None:
                continue
            chunks = [chunk for chunk, _ in folder.chunks().values()]
            updated_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except FileNotFoundError:
            # It ends just now: its files are on their way to where they are published.
            continue
        holder = Holder(**note["holder"])
        running = holder.is_alive(updated_at)
        yield JobState(
            job_id=note["job_id"],
            run_id=note["run_id"],
            state="running" if running else "stopped",
            replace=note["replace"],
            chunks=len(chunks),
            rows=sum(chunk.rows for chunk in chunks),
            updated_at=updated_at,
            holder=holder if running else None,
            details=note["details"],
        )
