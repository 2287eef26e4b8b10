"""Jobs that write a sink in processes of their own, and readers of what they wrote.

Each job writes CHUNKS chunks as fast as it can, so that nearly every moment is inside a transaction, a close or
the pause between two chunks.
"""

import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from itertools import count

import duckdb
import numpy as np
import pyarrow as pa
from processes import processes

from mtl_rank.errors import ScoresError
from mtl_rank.features.duckdb_file import open_settled
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.sink import DuckDBSink
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget

CHUNKS, ROWS = 4, 400
SCHEMA = ScoresSchema({"user id": "VARCHAR", "item_id": "BIGINT"}, ("ctr", "cvr"))
# What takes longer hangs.
SECONDS = 300


def scores_of(job_id, number):
    """A chunk that depends on the job and its number alone."""
    items = np.arange(number * ROWS, (number + 1) * ROWS)
    random = np.random.default_rng([number, len(job_id)])
    return pa.table(
        {
            "user id": [f"{job_id} {item}" for item in items],
            "item_id": items,
            "event_timestamp": pa.array(items * 1_000_000, pa.timestamp("us", "UTC")),
            "ctr": random.random(ROWS),
            "cvr": random.random(ROWS),
        }
    )


def write_job(path, job_id, replace=False, patience=None, hold=None, chunks=CHUNKS, progress=None, rest=None):
    """What a scoring process does, which may rest after so many chunks. Returns the number that it wrote itself."""
    advance(progress, -1)
    sink = DuckDBSink(
        ScoresTarget(path), SCHEMA, run_id="run", job_id=job_id, replace=replace, patience=patience
    )
    written = 0
    with sink:
        advance(progress, 0)
        if hold:
            hold[0].set()
            hold[1].wait(SECONDS)
        for number in range(chunks):
            if not sink.finished and number not in sink.committed:
                written += sink.commit(Chunk(number, number * ROWS, ROWS), scores_of(job_id, number))
            advance(progress, number + 1)
            if number + 1 == rest:
                time.sleep(SECONDS)
        sink.finish(chunks)
    return written


def advance(progress, value):
    if progress is not None:
        progress.value = value


def report(function, outcome, *args, **kwargs):
    try:
        outcome.put(function(*args, **kwargs))
    except ScoresError as error:
        outcome.put(error)


def stoppable(function, *args, **kwargs):
    # What runs in the background of a shell ignores Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    function(*args, **kwargs)


def start(function, *args, **kwargs):
    process = processes.Process(target=function, args=args, kwargs=kwargs, daemon=True)
    process.start()
    return process


@contextmanager
def opened(path):
    """The file as any other program would read it, trying again for a second while it is held.

    A second of tries in which the file changes: on a busy machine a process may hold the file and not run.
    """
    until, seen = time.monotonic() + SECONDS, set()
    for tries in count(1):
        try:
            con = open_settled(
                path, lambda: duckdb.connect(str(path), read_only=True), duckdb.DuckDBPyConnection.close
            )
            break
        except duckdb.Error:
            seen.add(path.stat().st_mtime_ns)
            if (tries > 200 and len(seen) > 25) or time.monotonic() > until:
                raise
            time.sleep(0.005)
    with con:
        yield con


def read(path, query):
    with opened(path) as con:
        return con.execute(query).fetchall()


ROWS_OF_JOBS = (
    'SELECT job_id, "user id", item_id, epoch_us(event_timestamp), ctr, cvr FROM scores ORDER BY 1, 3'
)


def rows_of(job_id):
    return [
        (job_id, *row)
        for number in range(CHUNKS)
        for row in zip(
            *(
                column.cast(pa.int64()).to_pylist()
                if pa.types.is_timestamp(column.type)
                else column.to_pylist()
                for column in scores_of(job_id, number).columns
            ),
            strict=True,
        )
    ]


def assert_whole_chunks(path):
    """Every chunk of the ledger is in the table, all of it, and nothing else is."""
    tables = {name for (name,) in read(path, "SELECT table_name FROM duckdb_tables()")}
    if "scores" not in tables:
        return
    in_table = read(path, f"SELECT item_id // {ROWS} AS part, count(*) FROM scores GROUP BY ALL ORDER BY 1")
    in_ledger = read(path, "SELECT chunk, rows FROM scores_jobs WHERE chunk >= 0 ORDER BY 1")
    assert in_table == in_ledger
    assert all(rows == ROWS for _, rows in in_table)


def kill_before(step, functions):
    """From now on this process is killed before so many lines of these functions of the project."""
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_name not in functions or "mtl_rank" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        if lines == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def killed_after(chunks, delay, *args, signal_number=signal.SIGKILL, **kwargs):
    """Start write_job, let it commit so many chunks (-1: not even begin) and a moment more, then send the signal.

    However slow the machine, at most one chunk more is committed. Returns the exit code.
    """
    progress = processes.Value("i", -2)
    process = start(stoppable, write_job, *args, progress=progress, rest=chunks + 1, **kwargs)
    deadline = time.monotonic() + SECONDS
    while progress.value < chunks and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal_number)
    process.join(SECONDS)
    assert process.exitcode is not None
    return process.exitcode
