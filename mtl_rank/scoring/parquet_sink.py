"""Scores in parquet, a file or a folder with a folder per day: all rows of a job at once, or none of them.

A chunk is a file in a working folder beside the target. The file appears whole and says itself which candidates it
covers, so it is the chunk and its ledger row in one. When the last is there, all become the target in one step.
"""

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from mtl_rank.durable import appearing, put_folder, sync_folder
from mtl_rank.errors import ScoresError
from mtl_rank.features.sql import Engine, quote
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.holder import LONGEST_PAUSE_FOR_A_JOB, Holder, JobHeld
from mtl_rank.scoring.ledger import Chunk, Details, JobState, check_chunks, refuse_added
from mtl_rank.scoring.parquet_target import (
    DATE,
    NOTE,
    JobFolder,
    ParquetTarget,
    columns_there,
    parquet_jobs,
    published,
    remove_abandoned,
)
from mtl_rank.scoring.publish import link_tree, locked, put_back, remove_tree, try_lock
from mtl_rank.scoring.table import ScoresSchema

_FORMAT = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{NOTE}: $note}}"


class ParquetSink:
    """Writes one job's chunks, as `DuckDBSink` does, and publishes them at `finish`.

    replace: the scores of this job take the place of all that are there; otherwise those of a folder are kept, and a
    file must not exist.
    """

    def __init__(
        self,
        target: ParquetTarget,
        schema: ScoresSchema,
        *,
        run_id: str,
        job_id: str,
        replace: bool = False,
        patience: Patience | None = None,
        details: Details | None = None,
    ) -> None:
        self.target = target
        self.schema = schema
        self.job_id = job_id
        self.details = details or {}
        self.run_id = run_id
        self._replace = replace
        self._patience = patience or Patience()
        self._folder = JobFolder(target.work / job_id)
        self._committed: dict[int, tuple[Chunk, Details]] = {}
        self._finished = False
        self._lock: int | None = None
        self._me: Holder | None = None

    @property
    def finished(self) -> bool:
        """Whether the job is done: finished here, or found finished when it was claimed."""
        return self._finished

    @property
    def committed(self) -> Mapping[int, Chunk]:
        """The chunks that are in the working folder, by number."""
        return MappingProxyType({number: chunk for number, (chunk, _) in self._committed.items()})

    def begin(self) -> None:
        """Check that the target can take the scores and claim the job; a finished job is left as it is.

        Raises:
            ScoresError: the target does not fit or cannot be written; the job replaced the scores before and others
                have added to them since; or the same job runs elsewhere and did not end within `patience.job`
                seconds, naming who holds it.
        """
        self._refuse_names()
        if not self.target.path.parent.is_dir():
            raise ScoresError(f"the folder {self.target.path.parent} does not exist: create it first")
        with _mendable(self.target):
            self._put_back()
        self._look_for_end()
        if self._finished and not self.target.work.exists():
            return
        if not self._finished:
            self._refuse_misfit()
        with _mendable(self.target):
            self._lock = self._patience.retry(
                self._claim, JobHeld, self._patience.job, LONGEST_PAUSE_FOR_A_JOB
            )
            try:
                self._go_on()
            except BaseException:
                # Otherwise this very process would hold the job, and wait for itself when it tries again.
                self._let_go()
                raise

    def commit(self, chunk: Chunk, scores: pa.Table | pa.RecordBatch, details: Details | None = None) -> bool:
        """Write a chunk, all of it or nothing. False if it had been committed before: nothing is written then.

        Raises:
            ScoresError: the disk is full, a value does not fit its column, or the chunk covers other candidates than
                before.
            ValueError: the columns or rows of `scores` are not those promised, or the job is not held.
        """
        if self._lock is None:
            raise ValueError(
                f"job {self.job_id} is not held: call begin() first; a finished job takes no chunks"
            )
        table = pa.Table.from_batches([scores]) if isinstance(scores, pa.RecordBatch) else scores
        if set(table.column_names) != set(self.schema.given) or table.num_rows > chunk.rows:
            raise ValueError(f"{table.num_rows} rows of {table.column_names} do not fit {chunk}")
        if chunk.number in self._committed:
            before = self._committed[chunk.number][0]
            if before != chunk:
                raise ScoresError(
                    f"job {self.job_id} for {self.target} has {before}, not {chunk}: "
                    "the candidates or the chunk size changed since it began"
                )
            return False
        given = [
            f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in self.schema.given.items()
        ]
        note = json.dumps({"chunk": vars(chunk), "details": details or {}})
        with (
            _mendable(self.target),
            Engine().connect() as con,
            appearing(self._folder.chunk_file(chunk.number)) as path,
        ):
            con.register("chunk", table)
            con.execute(
                f"COPY (SELECT {', '.join(given)}, $run AS run_id, $job AS job_id, now() AS scored_at FROM chunk) "
                f"TO $out ({_FORMAT})",
                {"run": self.run_id, "job": self.job_id, "out": str(path), "note": note},
            )
        self._committed[chunk.number] = (chunk, details or {})
        return True

    def finish(self, chunks: int, details: Details | None = None) -> None:
        """Publish the scores: readers see all of them, or what was there before.

        chunks: how many there are; all must have been committed and follow each other without a gap.
        details: what the target shall say of the job; None = what the job said when it began.

        Raises:
            ScoresError: as `begin` and `commit`.
            ValueError: a chunk is missing, or the job is not held.
        """
        if self._finished:
            return
        check_chunks(self.job_id, self.committed, chunks)
        note = self._note(
            details=dict(self.details if details is None else details),
            chunks=chunks,
            rows=sum(chunk.rows for chunk in self.committed.values()),
            finished_at=datetime.now(UTC).isoformat(),
        )
        with _mendable(self.target):
            publish = self._publish_folder if self.target.is_folder else self._publish_file
            publish(json.dumps(note))
            self._finished = True
            if self._replace:
                remove_abandoned(self.target)
            self._clear()

    def chunk_details(self) -> list[Details]:
        """What was said of each committed chunk of this job, in their order."""
        return [details for _, (_, details) in sorted(self._committed.items())]

    def jobs(self) -> list[JobState]:
        """All jobs whose scores are there or under way, the last one at work first."""
        return parquet_jobs(self.target)

    def state(self, limit: float | None = None) -> JobState | None:  # noqa: ARG002, files are not waited for
        """This job as its files have it; None before it began."""
        return next((job for job in self.jobs() if job.job_id == self.job_id), None)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def _note(self, **facts: Any) -> dict[str, Any]:
        return {"job_id": self.job_id, "run_id": self.run_id, "replace": self._replace, **facts}

    def _go_on(self) -> None:
        # Whoever held the job until now may have finished it, and been killed before it tidied up.
        if self.job_id in published(self.target):
            self._clear()
            self._look_for_end()
            return
        self._me = Holder.here()
        self._folder.begin(self._note(details=dict(self.details)), self._me)
        self._committed = dict(self._folder.chunks())

    def _look_for_end(self) -> None:
        there = published(self.target).keys()
        self._finished = self.job_id in there
        if self._finished and self._replace:
            refuse_added(self.job_id, self.target, there - {self.job_id})

    def _claim(self) -> int:
        while True:
            # `exist_ok` would fail on a folder that is removed just now.
            with suppress(FileExistsError):
                self.target.work.mkdir()
            try:
                return try_lock(self._folder.lock)
            except FileNotFoundError:
                # Another job ended and removed the folder, which was empty for a moment.
                continue
            except BlockingIOError:
                note = self._folder.note()
                holder = Holder(**note["holder"]) if note else "another process"
                raise JobHeld(f"job {self.job_id} for {self.target} is running: {holder} holds it") from None

    def _refuse_names(self) -> None:
        if self.target.is_folder and DATE in {name.lower() for name in self.schema.columns}:
            raise ScoresError(
                f"{self.target}: its folders are named by {DATE!r}, which is a column of the scores too"
            )
        for name, kind in self.schema.given.items():
            if "HUGEINT" in kind:
                raise ScoresError(
                    f"column {name!r} is {kind}, which parquet would round: make it BIGINT or text"
                )

    def _refuse_misfit(self) -> None:
        # What is there must be scores also where they are replaced.
        if self.job_id in published(self.target) or self._replace:
            return
        with _mendable(self.target):
            existing = columns_there(self.target)
        if existing is None:
            return
        if not self.target.is_folder:
            raise ScoresError(f"{self.target} has scores already: choose another file, or --replace it")
        if misfit := self.schema.misfit(existing):
            raise ScoresError(
                f"{self.target} does not fit: {misfit}.\nChoose another folder, or --replace it"
            )

    def _publish_file(self, note: str) -> None:
        whole = self._folder.path / "whole.parquet"
        with appearing(whole) as path, Engine().connect() as con:
            self._copy(con, f"SELECT * FROM {quote('chunks')}", _FORMAT, path, note)
        if self._replace:
            whole.replace(self.target.path)
        else:
            try:
                # A link, unlike a rename, never takes the place of a file made at the same moment.
                os.link(whole, self.target.path)
            except FileExistsError:
                self._refuse_misfit()
                raise
        # The chunks go now: the name must be on the disk before.
        sync_folder(self.target.path.parent)

    def _publish_folder(self, note: str) -> None:
        new = self._folder.path / "new"
        remove_tree(new)
        # With one thread the rows of a day stay in their order, in one file.
        with Engine(threads=1).connect() as con:
            day = f"CAST(event_timestamp AT TIME ZONE 'UTC' AS DATE) AS {quote(DATE)}"
            options = f"{_FORMAT}, PARTITION_BY ({quote(DATE)}), FILENAME_PATTERN $pattern"
            select = f"SELECT *, {day} FROM {quote('chunks')}"
            self._copy(con, select, options, new, note, pattern=f"{self.job_id}-{{i}}")
        for path in new.rglob("*.parquet"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        with locked(self.target.publish_lock):
            put_back(self.target.path, self.target.away)
            self._refuse_misfit()
            if not self._replace and self.target.path.exists():
                link_tree(self.target.path, new)
            put_folder(new, self.target.path, self.target.away)

    def _put_back(self) -> None:
        """A folder that a killed job moved away, and did not replace, is the scores that are there."""
        if self.target.away.exists():
            # The working folder may be gone by now: then whoever moved the folder away has replaced it and ended.
            with suppress(FileNotFoundError), locked(self.target.publish_lock):
                put_back(self.target.path, self.target.away)

    def _copy(
        self,
        con: duckdb.DuckDBPyConnection,
        select: str,
        options: str,
        out: Path,
        note: str,
        **values: str,
    ) -> None:
        files = [glob.escape(str(self._folder.chunk_file(number))) for number in range(len(self._committed))]
        con.read_parquet(files, hive_partitioning=False).create_view("chunks")
        con.execute(f"COPY ({select}) TO $out ({options})", {"out": str(out), "note": note, **values})

    def _clear(self) -> None:
        """Nothing of a finished job stays in the working folder, nor the folder once no job needs it."""
        remove_tree(self._folder.path)
        self._folder.lock.unlink(missing_ok=True)
        self._let_go()
        try:
            # Only its holder may remove a lock: others would go on with the file that was removed.
            lock = try_lock(self.target.publish_lock)
        except (BlockingIOError, FileNotFoundError):
            return
        with suppress(OSError):
            self.target.publish_lock.unlink()
            self.target.work.rmdir()
        os.close(lock)

    def _let_go(self) -> None:
        if self._me is not None:
            self._me.let_go()
            self._me = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextmanager
def _mendable(target: ParquetTarget) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        text = reason or re.sub(r"^[\w ]*Error: ", "", str(error).splitlines()[0])
        raise ScoresError(
            f"{target}: {text}.\nWhat was committed before is safe: run again once this is mended"
        ) from error
