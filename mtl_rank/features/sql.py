"""DuckDB in one place: how a name becomes SQL and how a connection is set up.

Every identifier that reaches SQL text goes through `quote`; every value is a bound parameter.
"""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb


def quote(name: str) -> str:
    """A name as an SQL identifier: any text, also with quotes, spaces or SQL in it, names one column or table.

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


@dataclass(frozen=True)
class Engine:
    """How much of the machine a DuckDB connection may use.

    memory_limit: such as "4GB"; None = DuckDB's own default, 80 % of the machine's memory.
    temp_directory: where work larger than memory_limit goes; None = a folder below the system's temporary one.
    threads: None = one per core.
    search_path: the folder that relative paths inside SQL are looked up in; None = the current folder.
    """

    memory_limit: str | None = None
    temp_directory: str | None = None
    threads: int | None = None
    search_path: Path | None = None

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A new in-memory database in UTC that cannot see Python variables. The caller closes it."""
        config: dict[str, str | int | bool] = {
            # SQL given by a user must never pick up a variable of ours by its name.
            "python_enable_replacements": False,
            # An in-memory database would spill to `.tmp` in the current folder.
            "temp_directory": self.temp_directory
            or str(Path(tempfile.gettempdir()) / f"mtlrank-{os.getpid()}"),
        }
        if self.memory_limit is not None:
            config["memory_limit"] = self.memory_limit
        if self.threads is not None:
            config["threads"] = self.threads
        con = duckdb.connect(":memory:", config=config)
        con.execute("SET TimeZone = 'UTC'")
        if self.search_path is not None:
            con.execute("SET file_search_path = ?", [str(self.search_path)])
        return con
