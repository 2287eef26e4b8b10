"""The scores table in DuckDB: every chunk in it exactly once, whatever happens in between.

A chunk's scores and its ledger row commit in one transaction, and the file is open only for that moment. A job
that was killed continues after its last committed chunk; readers and other jobs get in between two chunks.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from mtl_rank.errors import ScoresError
from mtl_rank.features.sql import quote, quote_all
from mtl_rank.scoring.database import Database, Patience
from mtl_rank.scoring.holder import LONGEST_PAUSE_FOR_A_JOB, Holder, JobHeld
from mtl_rank.scoring.ledger import Chunk, Details, JobState, Ledger, check_chunks, refuse_added
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget, columns_of, create_table, is_view

_SECONDS_TO_RELEASE = 5.0


class DuckDBSink:
    """Writes one job's chunks. Entering claims the job, leaving gives it up; use it from one thread.

    job_id: fingerprint of all that decides the scores (run, candidates, options). Equal ids are one job.
    replace: fill a table beside the scores table, which takes its place in one transaction at `finish`. Other
    jobs that wrote to the old table are then marked `replaced` in the ledger and begin anew when run again.
    details: what the ledger shall say of the job while it runs, for JSON.

    >>> with DuckDBSink(target, schema, run_id="r1", job_id="4f2a") as sink:       # doctest: +SKIP
    ...     for chunk, scores in score_chunks():
    ...         if chunk.number not in sink.committed:
    ...             sink.commit(chunk, scores)
    ...     sink.finish(chunks=12)
    """

    def __init__(
        self,
        target: ScoresTarget,
        schema: ScoresSchema,
        *,
        run_id: str,
        job_id: str,
        replace: bool = False,
        patience: Patience | None = None,
        details: Details | None = None,
    ) -> None:
        self._target = target
        self.schema = schema
        self.run_id = run_id
        self.job_id = job_id
        self._replace = replace
        self._patience = patience or Patience()
        self.details = details or {}
        self._database = Database(target.path, self._patience)
        self._ledger = Ledger(target)
        self._destination = target.staging(job_id) if replace else target.table
        self._me: Holder | None = None
        self._committed: dict[int, Chunk] = {}
        self._finished = False

    @property
    def finished(self) -> bool:
        """Whether the job is done: finished here, or found finished when it was claimed."""
        return self._finished

    @property
    def committed(self) -> Mapping[int, Chunk]:
        """The chunks that are in the table, by number."""
        return MappingProxyType(self._committed)

    def begin(self) -> None:
        """Check that the table can take the scores and claim the job; a finished job is left as it is.

        Raises:
            ScoresError: the path or the table does not fit, naming the columns; the file stayed busy; the job
                replaced the scores before and others have added to them since; or the same job runs elsewhere and
                did not end within `patience.job` seconds, naming who holds it.
        """
        self._database.create()
        # Not self._me yet: until the ledger has the claim there is nothing to commit with or to give up.
        me = Holder.here()
        try:
            claimed = self._patience.retry(
                lambda: self._database.transact(lambda con: self._claim(con, me)),
                JobHeld,
                self._patience.job,
                LONGEST_PAUSE_FOR_A_JOB,
            )
        except BaseException:
            me.let_go()
            raise
        self._finished, self._committed = claimed
        if self._finished:
            me.let_go()
        else:
            self._me = me

    def commit(self, chunk: Chunk, scores: pa.Table | pa.RecordBatch, details: Details | None = None) -> bool:
        """Write a chunk, all of it or nothing. False if it had been committed before: nothing is written then.

        scores: the columns of `ScoresSchema.given`, in any order, at most `chunk.rows` rows.
        details: what the ledger shall say of the chunk, for JSON.

        Raises:
            ScoresError: the job was taken over or the table changed meanwhile; the disk is full; the file stayed
                busy; a value does not fit its column; the chunk covers other candidates than before; or another
                program has overwritten a chunk.
            ValueError: the columns or rows of `scores` are not those promised, or the job is not held.
        """
        me = self._held()
        table = pa.Table.from_batches([scores]) if isinstance(scores, pa.RecordBatch) else scores
        if set(table.column_names) != set(self.schema.given) or table.num_columns != len(self.schema.given):
            raise ValueError(f"the chunk has columns {table.column_names}, not {list(self.schema.given)}")
        if table.num_rows > chunk.rows or chunk.number < 0:
            raise ValueError(f"{table.num_rows} rows of scores do not fit {chunk}")
        if self._is_committed(chunk):
            return False

        def write(con: duckdb.DuckDBPyConnection) -> bool:
            self._require_tables(con)
            self._ledger.renew(con, self.job_id, me)
            # A commit that failed half-way, say on a full disk, may have reached the file all the same.
            self._committed = self._chunks_of_ledger(con)
            if self._is_committed(chunk):
                return False
            self._insert(con, table)
            self._ledger.add(con, self.job_id, self.run_id, chunk, me, details or {})
            return True

        written = self._database.transact(write)
        self._committed[chunk.number] = chunk
        return written

    def finish(self, chunks: int, details: Details | None = None) -> None:
        """Mark the job finished; a replacing job's table takes the place of the old one in the same transaction.

        chunks: how many there are; all must have been committed and follow each other without a gap.
        details: what the ledger shall say of the job from now on; None = what it said before.

        Raises:
            ScoresError: as `commit`.
            ValueError: a chunk is missing, or the job is not held.
        """
        if self._finished:
            return
        me = self._held()
        check_chunks(self.job_id, self._committed, chunks)

        def end(con: duckdb.DuckDBPyConnection) -> None:
            self._require_tables(con)
            if self._replace:
                self._swap(con)
            self._ledger.renew(con, self.job_id, me, state="finished", details=details)
            self._chunks_of_ledger(con)

        self._database.transact(end)
        self._finished = True
        self._let_go()

    def state(self, limit: float | None = None) -> JobState | None:
        """This job as the ledger has it; None before it began. limit: seconds to wait for the file, as `transact`."""
        patience = self._patience if limit is None else replace(self._patience, file=limit)
        return next((job for job in jobs(self._target, patience) if job.job_id == self.job_id), None)

    def jobs(self) -> list[JobState]:
        """All jobs of the table, the last one at work first."""
        return jobs(self._target, self._patience)

    def chunk_details(self) -> list[Details]:
        """What was said of each committed chunk of this job, in their order."""
        return self._database.transact(
            lambda con: self._ledger.chunk_details(con, self.job_id), read_only=True
        )

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._me is None:
            return
        me = self._let_go()
        try:
            self._database.transact(
                lambda con: self._ledger.release(con, self.job_id, me), limit=_SECONDS_TO_RELEASE
            )
        except ScoresError:
            # Only a courtesy to the next process, which finds out by itself that this one let go.
            return

    def _claim(self, con: duckdb.DuckDBPyConnection, me: Holder) -> tuple[bool, dict[int, Chunk]]:
        self._refuse_misfit(con)
        self._ledger.create(con)
        if columns_of(con, self._target.table) is None:
            self._ledger.retire(con)
        job = self._ledger.job(con, self.job_id)
        if job and job.state == "finished":
            if self._replace:
                refuse_added(self.job_id, self._target, self._ledger.added(con, but=self.job_id))
            return True, self._ledger.chunks(con, self.job_id)
        if job and job.state == "running":
            raise JobHeld(f"job {self.job_id} for {self._target} is running: {job.holder} holds it")
        if job and job.state == "stopped" and job.replace != self._replace:
            begun = "with" if job.replace else "without"
            raise ScoresError(
                f"job {self.job_id} for {self._target} was begun {begun} replacing the table and is not finished: "
                f"run it {begun} --replace"
            )
        existing = columns_of(con, self._destination)
        if (job and job.state == "replaced") or existing is None:
            self._ledger.forget_chunks(con, self.job_id)
        if existing is None:
            create_table(con, self._destination, self.schema.columns)
        self._ledger.take(con, self.job_id, self.run_id, self._replace, me, self.details)
        return False, self._ledger.chunks(con, self.job_id)

    def _refuse_misfit(self, con: duckdb.DuckDBPyConnection) -> None:
        table = self._target.table
        existing = columns_of(con, table)
        if existing is None:
            return
        if is_view(con, table):
            raise ScoresError(f"{self._target} is a view: choose another --table")
        if self._replace:
            # A table with other columns is what --replace is for; a table that never held scores is not.
            if not self._ledger.owns_table(con):
                raise ScoresError(f"{self._target} was not written by mtl_rank: choose another --table")
            return
        misfit = self.schema.misfit(existing)
        if misfit:
            raise ScoresError(
                f"{self._target} does not fit: {misfit}.\nChoose another --table, or --replace it"
            )

    def _require_tables(self, con: duckdb.DuckDBPyConnection) -> None:
        """The tables are looked at in every transaction: anyone may have been in the file since the last."""
        existing = columns_of(con, self._destination)
        if existing is None or not self._ledger.exists(con):
            raise ScoresError(f"{self._target} or its ledger was removed while job {self.job_id} was running")
        misfit = self.schema.misfit(existing)
        if misfit:
            raise ScoresError(f"{self._target} was changed while job {self.job_id} was running: {misfit}")

    def _chunks_of_ledger(self, con: duckdb.DuckDBPyConnection) -> dict[int, Chunk]:
        """The committed chunks. Raises ScoresError when one is gone that was there.

        That is not ours to prevent: a program that opens the file by DuckDB alone while a chunk commits may overwrite
        it (`features/duckdb_file.py`). The ledger then lacks it as the table does.
        """
        found = self._ledger.chunks(con, self.job_id)
        lost = sorted(self._committed.keys() - found.keys())
        if lost:
            raise ScoresError(
                f"{self._target} has lost chunk {lost[0]} of job {self.job_id}, which was committed: another program "
                "wrote to the file at that moment.\nRun again: what is missing will be scored anew"
            )
        return found

    def _insert(self, con: duckdb.DuckDBPyConnection, table: pa.Table) -> None:
        # The statement names two tables; this one must not hide the other.
        source = f"{self._destination} chunk"
        con.register(source, table)
        given = quote_all(self.schema.given)
        con.execute(
            f"INSERT INTO {quote(self._destination)} ({given}, run_id, job_id, scored_at) "
            f"SELECT {given}, ?, ?, now() FROM {quote(source)}",
            [self.run_id, self.job_id],
        )
        con.unregister(source)

    def _swap(self, con: duckdb.DuckDBPyConnection) -> None:
        for job_id in self._ledger.abandoned(con, but=self.job_id):
            con.execute(f"DROP TABLE IF EXISTS {quote(self._target.staging(job_id))}")
        self._refuse_misfit(con)
        con.execute(f"DROP TABLE IF EXISTS {quote(self._target.table)}")
        con.execute(f"ALTER TABLE {quote(self._destination)} RENAME TO {quote(self._target.table)}")
        self._ledger.retire(con, but=self.job_id)

    def _is_committed(self, chunk: Chunk) -> bool:
        before = self._committed.get(chunk.number)
        if before not in (None, chunk):
            raise ScoresError(
                f"job {self.job_id} for {self._target} has {before}, not {chunk}: "
                "the candidates or the chunk size changed since it began"
            )
        return before is not None

    def _held(self) -> Holder:
        if self._me is None:
            raise ValueError(
                f"job {self.job_id} is not held: call begin() first; a finished job takes no chunks"
            )
        return self._me

    def _let_go(self) -> Holder:
        me = self._held()
        me.let_go()
        self._me = None
        return me


def jobs(target: ScoresTarget, patience: Patience | None = None) -> list[JobState]:
    """All jobs of a scores table, the last one at work first; also while one of them runs.

    Raises:
        ScoresError: the file does not exist, is no DuckDB database or stayed busy.
    """
    if not target.path.exists():
        raise ScoresError(f"{target.path} does not exist")
    ledger = Ledger(target)

    def read(con: duckdb.DuckDBPyConnection) -> list[JobState]:
        return ledger.jobs(con) if ledger.exists(con) else []

    return Database(target.path, patience or Patience()).transact(read, read_only=True)
