"""DuckDB in one place: how a name becomes SQL and how a connection is set up.

Every identifier that reaches SQL text goes through `quote`; every value is a bound parameter.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from mtl_rank.features.interrupts import watched


def quote(name: str) -> str:
    """A name as an SQL identifier: whatever the text holds, it names one column or table.

    >>> quote('say "hi" to')
    '"say ""hi"" to"'
    """
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def quote_all(names: Iterable[str]) -> str:
    """Several names as a comma-separated list of identifiers.

    >>> quote_all(["a", "b c"])
    '"a", "b c"'
    """
    return ", ".join(quote(name) for name in names)


def instant(sql: str) -> str:
    """SQL of a value as a point in time, in microseconds. A time without a zone means UTC."""
    return f"CAST({sql} AS TIMESTAMPTZ)"


@dataclass(frozen=True)
class Engine:
    """How much of the machine a DuckDB connection may use.

    memory_limit: such as "4GB"; None = DuckDB's own default, 80 % of the machine's memory.
    temp_directory: where work larger than that goes; None = a folder below the system's temporary one.
    threads: None = one per core.
    search_path: the folder in which relative paths inside SQL start; None = the current folder.
    """

    memory_limit: str | None = None
    temp_directory: str | None = None
    threads: int | None = None
    search_path: Path | None = None

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A new in-memory database in UTC that cannot see Python variables. The caller closes it."""
        # An in-memory database would otherwise spill to `.tmp` in the current folder.
        spill = self.temp_directory or str(Path(tempfile.gettempdir()) / f"mtl_rank-{os.getpid()}")
        con = watched(duckdb.connect(":memory:", config={"temp_directory": spill}))
        if self.memory_limit is not None:
            con.execute("SET memory_limit = ?", [self.memory_limit])
        if self.threads is not None:
            con.execute("SET threads = ?", [self.threads])
        return self._prepare(con)

    def cursor(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """A second connection to the database of `con`, for a statement beside one that is being read."""
        return self._prepare(watched(con.cursor()))

    def _prepare(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        con.execute("SET TimeZone = 'UTC'")
        # SQL given by a user must never pick up a variable of ours by its name.
        con.execute("SET python_enable_replacements = false")
        # In a session that is typed, DuckDB would print a bar of its own into what others show.
        con.execute("SET enable_progress_bar = false")
        if self.search_path is not None:
            con.execute("SET file_search_path = ?", [str(self.search_path)])
        return con


def operators(con: duckdb.DuckDBPyConnection, sql: str) -> Iterator[tuple[str, bool]]:
    """What DuckDB would do for a SELECT: the name of each operator, and whether it is one that others start from."""
    ((_, plan),) = con.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
    nodes: list[dict[str, Any]] = json.loads(plan)
    while nodes:
        node = nodes.pop()
        children = node.get("children", [])
        nodes += children
        yield str(node["name"]).strip(), not children
