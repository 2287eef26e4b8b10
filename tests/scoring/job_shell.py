"""`mtlrank score` in processes that are stopped at chosen moments, and what their jobs left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
from sink_jobs import opened

SCRIPT = Path(__file__).with_name("killed_jobs.py")
CHUNK_ROWS, CANDIDATES = 240, 1_200
STAMPS = ["job_id", "scored_at"]


def score(to: Path, *options: str) -> list[str]:
    return ["score", "--candidates", "data/candidates.parquet", "--to", str(to), "--json", *options]


class Shell:
    """Runs commands in a process that has imported everything already."""

    def __init__(self, project: Path, temporary: Path) -> None:
        self._temporary = temporary
        self._process = subprocess.Popen(
            [sys.executable, SCRIPT, str(CHUNK_ROWS)],
            cwd=project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )

    def temporary_files(self) -> list[str]:
        """What the commands left of their own."""
        return [path.name for path in self._temporary.glob("mtlrank-*")]

    def at_once(self, *attempts: dict[str, Any]) -> list[dict[str, Any]]:
        """The outcomes of attempts that start together; killed_jobs.py says what an attempt is."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(attempts) + "\n")
        self._process.stdin.flush()
        outcomes: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return outcomes

    def run(self, arguments: list[str], **moment: Any) -> dict[str, Any]:
        return self.at_once({"arguments": arguments, **moment})[0]

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


def scores_of(path: Path) -> pl.DataFrame:
    with opened(path) as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql("SELECT * FROM scores ORDER BY rowid").pl().drop(STAMPS)


def assert_whole_chunks(path: Path, chunk_rows: int = CHUNK_ROWS) -> int:
    """The table holds what the ledger says. Returns the number of its rows."""
    if not path.exists():
        return 0
    with opened(path) as con:
        tables = {name for (name,) in con.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
        if "scores" not in tables:
            return 0
        ((rows,),) = con.sql("SELECT count(*) FROM scores").fetchall()
        ((committed,),) = con.sql(
            "SELECT coalesce(sum(rows), 0) FROM scores_jobs WHERE chunk >= 0"
        ).fetchall()
    assert rows == committed
    assert rows % chunk_rows == 0
    return int(rows)
