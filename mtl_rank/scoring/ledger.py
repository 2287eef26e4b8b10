"""The ledger beside a scores table: one row per job and one per committed chunk, written with the chunk itself.

A job's own row has chunk -1, no rows, and one of these states: `appending` or `replacing` while there is work
left, `finished`, or `replaced` when its scores are gone because another job or a user took the table away.
`details` is a JSON document of whoever scores; the ledger only keeps it.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from mtl_rank.errors import ScoresError
from mtl_rank.features.sql import quote
from mtl_rank.scoring.holder import Holder
from mtl_rank.scoring.table import ScoresTarget, columns_of, create_table

_COLUMNS = {
    "job_id": "VARCHAR",
    "run_id": "VARCHAR",
    "chunk": "BIGINT",
    "first_row": "BIGINT",
    "rows": "BIGINT",
    "state": "VARCHAR",
    "committed_at": "TIMESTAMP WITH TIME ZONE",
    "host": "VARCHAR",
    "pid": "BIGINT",
    "started": "VARCHAR",
    "token": "VARCHAR",
    "details": "VARCHAR",
}
_JOB = -1

Details = Mapping[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Which candidates a chunk covers: `rows` of them from `first_row` on. number: 0, 1, 2, ... within the job."""

    number: int
    first_row: int
    rows: int


def check_chunks(job_id: str, committed: Mapping[int, Chunk], count: int) -> None:
    """Raise ValueError unless there are `count` chunks that follow each other without a gap."""
    row = 0
    for number in range(count):
        chunk = committed.get(number)
        if chunk is None or chunk.first_row != row:
            raise ValueError(f"job {job_id}: chunk {number} from row {row} on was not committed")
        row += chunk.rows
    if len(committed) != count:
        raise ValueError(f"job {job_id} has {len(committed)} chunks, not {count}")


def refuse_added(job_id: str, target: object, others: Collection[str]) -> None:
    """For a finished job that replaced all scores: raise ScoresError when `others` have added to them since.

    To say that nothing is left to do would be wrong, and to replace what was added, on a mere retry, worse.
    """
    if others:
        raise ScoresError(
            f"job {job_id} replaced all scores of {target} before, and job {min(others)} has added to them since: "
            "nothing was changed.\nTo replace those too make it another job: --replace --again WORD"
        )


@dataclass(frozen=True)
class JobState:
    """A job as the ledger has it.

    state: running, stopped (work left, nobody at it), finished, or replaced (its scores are no longer there).
    rows: candidates in the committed chunks. updated_at: last commit, UTC. holder: who works on it.
    details: what was said of it when it was begun and when it was finished.
    """

    job_id: str
    run_id: str
    state: str
    replace: bool
    chunks: int
    rows: int
    updated_at: datetime
    holder: Holder | None
    details: Details


class Ledger:
    """Reads and writes the ledger of one scores table, inside the caller's transaction."""

    def __init__(self, target: ScoresTarget) -> None:
        self._target = target
        self._table = quote(target.ledger)

    def exists(self, con: duckdb.DuckDBPyConnection) -> bool:
        """Whether there is a ledger.

        Raises:
            ScoresError: the table of that name is something else.
        """
        columns = columns_of(con, self._target.ledger)
        if columns is not None and columns != _COLUMNS:
            raise ScoresError(
                f"{self._target.path} has a table {self._target.ledger!r} that is no ledger of scores: "
                f"choose another name than {self._target.table!r}"
            )
        return columns is not None

    def create(self, con: duckdb.DuckDBPyConnection) -> None:
        """Create the ledger unless it exists. Its primary key is what no chunk can be in twice."""
        if not self.exists(con):
            create_table(con, self._target.ledger, _COLUMNS, key=("job_id", "chunk"))

    def jobs(self, con: duckdb.DuckDBPyConnection) -> list[JobState]:
        """Every job, the last one at work first."""
        rows = con.execute(
            f"""
            SELECT job.job_id, job.run_id, job.state, epoch_us(job.committed_at) AS updated,
                   job.host, job.pid, job.started, job.token, job.details,
                   count(part.chunk), coalesce(sum(part.rows), 0)::BIGINT
            FROM {self._table} AS job
            LEFT JOIN {self._table} AS part ON part.job_id = job.job_id AND part.chunk <> {_JOB}
            WHERE job.chunk = {_JOB}
            GROUP BY ALL
            ORDER BY updated DESC, job.job_id
            """
        ).fetchall()
        return [_job_state(*row) for row in rows]

    def job(self, con: duckdb.DuckDBPyConnection, job_id: str) -> JobState | None:
        """One job; None if it never began."""
        return next((job for job in self.jobs(con) if job.job_id == job_id), None)

    def chunks(self, con: duckdb.DuckDBPyConnection, job_id: str) -> dict[int, Chunk]:
        """The committed chunks of a job by number."""
        rows = con.execute(
            f"SELECT chunk, first_row, rows FROM {self._table} WHERE job_id = ? AND chunk <> {_JOB} ORDER BY chunk",
            [job_id],
        ).fetchall()
        return {row[0]: Chunk(*row) for row in rows}

    def chunk_details(self, con: duckdb.DuckDBPyConnection, job_id: str) -> list[Details]:
        """What was said of each committed chunk of a job, in their order."""
        rows = con.execute(
            f"SELECT details FROM {self._table} WHERE job_id = ? AND chunk <> {_JOB} ORDER BY chunk", [job_id]
        ).fetchall()
        return [_read(details) for (details,) in rows]

    def take(
        self,
        con: duckdb.DuckDBPyConnection,
        job_id: str,
        run_id: str,
        replace: bool,
        me: Holder,
        details: Details,
    ) -> None:
        """Make this claim the job's holder. Whoever held it before is locked out from now on."""
        state = "replacing" if replace else "appending"
        holder = [state, me.host, me.pid, me.started, me.token, json.dumps(details)]
        taken = self._changed(
            con,
            f"UPDATE {self._table} SET committed_at = now(), state = ?, host = ?, pid = ?, started = ?, token = ?, "
            f"details = ? WHERE job_id = ? AND chunk = {_JOB}",
            [*holder, job_id],
        )
        if not taken:
            con.execute(
                f"INSERT INTO {self._table} VALUES (?, ?, {_JOB}, NULL, NULL, ?, now(), ?, ?, ?, ?, ?)",
                [job_id, run_id, *holder],
            )

    def renew(
        self,
        con: duckdb.DuckDBPyConnection,
        job_id: str,
        me: Holder,
        state: str | None = None,
        details: Details | None = None,
    ) -> None:
        """Show that the claim is alive, and make sure that it still is ours.

        state: end the job in that state. details: say this of it from now on.

        Two transactions that renew one job conflict, so only one of them commits.

        Raises:
            ScoresError: another process took the job over or replaced the table.
        """
        held = self._changed(
            con,
            f"UPDATE {self._table} SET committed_at = now(), state = coalesce(?, state), "
            f"token = CASE WHEN ? IS NULL THEN token END, details = coalesce(?, details) "
            f"WHERE job_id = ? AND chunk = {_JOB} AND token = ?",
            [state, state, None if details is None else json.dumps(details), job_id, me.token],
        )
        if not held:
            raise ScoresError(
                f"job {job_id} lost its place in {self._target}: another process continued it or replaced the table. "
                "Run it again to continue"
            )

    def release(self, con: duckdb.DuckDBPyConnection, job_id: str, me: Holder) -> None:
        """Give the job up, so that another process need not find out whether this one lives."""
        if not self.exists(con):
            return
        con.execute(
            f"UPDATE {self._table} SET token = NULL WHERE job_id = ? AND chunk = {_JOB} AND token = ?",
            [job_id, me.token],
        )

    def add(
        self,
        con: duckdb.DuckDBPyConnection,
        job_id: str,
        run_id: str,
        chunk: Chunk,
        me: Holder,
        details: Details,
    ) -> None:
        """Record a chunk in the transaction that writes its scores."""
        con.execute(
            f"INSERT INTO {self._table} VALUES (?, ?, ?, ?, ?, 'committed', now(), ?, ?, ?, ?, ?)",
            [
                job_id,
                run_id,
                chunk.number,
                chunk.first_row,
                chunk.rows,
                me.host,
                me.pid,
                me.started,
                me.token,
                json.dumps(details),
            ],
        )

    def forget_chunks(self, con: duckdb.DuckDBPyConnection, job_id: str) -> None:
        """The scores of this job are gone: it begins again."""
        con.execute(f"DELETE FROM {self._table} WHERE job_id = ? AND chunk <> {_JOB}", [job_id])

    def owns_table(self, con: duckdb.DuckDBPyConnection) -> bool:
        """Whether a job of this ledger wrote to the scores table that is there now."""
        written = (
            f"SELECT 1 FROM {self._table} WHERE chunk = {_JOB} AND state IN ('appending', 'finished') LIMIT 1"
        )
        return self.exists(con) and con.execute(written).fetchone() is not None

    def added(self, con: duckdb.DuckDBPyConnection, but: str) -> list[str]:
        """The jobs that have scores in the table, save one."""
        rows = con.execute(
            f"SELECT DISTINCT job.job_id FROM {self._table} AS job JOIN {self._table} AS part USING (job_id) "
            f"WHERE job.chunk = {_JOB} AND job.state IN ('appending', 'finished') AND part.chunk <> {_JOB} "
            "AND job.job_id <> ?",
            [but],
        ).fetchall()
        return [job_id for (job_id,) in rows]

    def retire(self, con: duckdb.DuckDBPyConnection, but: str | None = None) -> None:
        """The scores table is gone: every job whose scores were in it, save one, is `replaced` and locked out."""
        con.execute(
            f"UPDATE {self._table} SET state = 'replaced', token = NULL "
            f"WHERE chunk = {_JOB} AND state IN ('appending', 'finished') AND job_id IS DISTINCT FROM ?",
            [but],
        )

    def abandoned(self, con: duckdb.DuckDBPyConnection, but: str) -> list[str]:
        """Give up replacing jobs that nobody works on, save one: their ids."""
        stopped = [
            job.job_id
            for job in self.jobs(con)
            if job.replace and job.state == "stopped" and job.job_id != but
        ]
        for job_id in stopped:
            con.execute(
                f"UPDATE {self._table} SET state = 'replaced', token = NULL WHERE chunk = {_JOB} AND job_id = ?",
                [job_id],
            )
        return stopped

    def _changed(self, con: duckdb.DuckDBPyConnection, statement: str, values: list[object]) -> int:
        row = con.execute(statement, values).fetchone()
        return int(row[0]) if row else 0


def _job_state(
    job_id: str,
    run_id: str,
    state: str,
    committed_us: int,
    host: str,
    pid: int,
    started: str,
    token: str | None,
    details: str | None,
    chunks: int,
    rows: int,
) -> JobState:
    updated_at = datetime.fromtimestamp(committed_us / 1e6, UTC)
    holder = Holder(host, pid, started, token) if token else None
    replace = state == "replacing"
    if state in ("appending", "replacing"):
        state = "running" if holder and holder.is_alive(updated_at) else "stopped"
    return JobState(job_id, run_id, state, replace, chunks, rows, updated_at, holder, _read(details))


def _read(details: str | None) -> Details:
    found: Details = json.loads(details) if details else {}
    return found
