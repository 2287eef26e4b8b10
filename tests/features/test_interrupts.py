"""Ctrl-C ends a query of DuckDB, whichever of its threads has the work, and what follows is not disturbed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Minutes of work, and not hours that would outlive a test that failed.
ENDLESS = "SELECT count(*) FROM range(100_000_000_000) AS t(i) WHERE i % 7 = 3"
SCRIPT = """
import signal, sys
from contextlib import closing
from mtl_rank.features.interrupts import interrupt_queries, interruptible
from mtl_rank.features.sql import Engine

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.default_int_handler)
way, sql, times = sys.argv[1:]
with interrupt_queries(), closing(Engine(threads=2).connect()) as con:
    for _ in range(int(times)):
        try:
            print("begin", flush=True)
            with interruptible():
                if way == "at once":
                    con.execute(sql)
                else:
                    con.sql(sql).to_arrow_reader(1024).read_next_batch()
        except KeyboardInterrupt:
            # The first query after Ctrl-C is not taken for the one that it was meant for.
            print(con.sql("SELECT sum(i) FROM range(3_000_000) AS t(i)").fetchall(), flush=True)
    # Nothing goes on interrupting.
    print(con.sql("SELECT count(*) FROM range(300_000_000) AS t(i) WHERE i % 7 = 3").fetchall())
"""


@pytest.mark.parametrize("way", ["at once", "in batches"])
def test_ctrl_c_ends_the_query_and_no_other(way: str) -> None:
    times = 20
    words = [sys.executable, "-c", SCRIPT, way, ENDLESS, str(times)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for number in range(times):
                assert process.stdout.readline() == "begin\n"
                # From before the query begins to long after.
                time.sleep(0.02 * number)
                process.send_signal(signal.SIGTERM if number % 2 else signal.SIGINT)
                assert process.stdout.readline() == "[(4499998500000,)]\n"
            assert process.stdout.readline() == "[(42857143,)]\n"
            assert process.wait() == 0
        finally:
            process.kill()


SNAPSHOT = """
import signal, sys
from pathlib import Path
from mtl_rank.features.interrupts import interrupt_queries
from mtl_rank.features.snapshot import snapshot_rows

signal.signal(signal.SIGINT, signal.default_int_handler)
sql, folder, times = sys.argv[1:]
with interrupt_queries():
    for _ in range(int(times)):
        print("begin", flush=True)
        try:
            snapshot_rows(sql, Path(folder), ["user"], Path(folder) / "rows.parquet")
        except KeyboardInterrupt:
            print("stopped", flush=True)
"""


def test_ctrl_c_while_rows_are_copied_is_no_mistake_in_the_rows(tmp_path: Path) -> None:
    times = 10
    endless = ENDLESS.replace("count(*)", "count(*) AS user, TIMESTAMP '2026-01-01' AS event_timestamp")
    words = [sys.executable, "-c", SNAPSHOT, endless, str(tmp_path), str(times)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for number in range(times):
                assert process.stdout.readline() == "begin\n"
                time.sleep(0.5 + 0.02 * number)
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == "stopped\n"
            assert process.wait() == 0
        finally:
            process.kill()
