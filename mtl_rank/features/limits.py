"""How much of a retrieval is held at once, chosen from the memory that DuckDB may use."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

JOIN_ROW_BYTES = 256
"""Memory that one row of either side of the narrow join takes at its peak, sort buffers included."""

_FETCH_SHARE = 4
_FEWEST_ROWS = 2**16
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True)
class Limits:
    """Rows at once; None = as many as the memory limit holds.

    join_rows: entity rows plus feature rows in one join; larger inputs are joined one window of time after another.
    fetch_rows: entity rows whose features are read, and are in memory, together.
    """

    join_rows: int | None = None
    fetch_rows: int | None = None

    def joined(self, memory: int) -> int:
        """join_rows, or what `memory` bytes hold."""
        return self.join_rows or max(_FEWEST_ROWS, memory // JOIN_ROW_BYTES)

    def fetched(self, memory: int, kinds: Sequence[str]) -> int:
        """fetch_rows, or what a quarter of `memory` bytes holds of rows of these DuckDB types."""
        return self.fetch_rows or max(_FEWEST_ROWS, memory // _FETCH_SHARE // sum(map(_width, kinds)))


def memory_of(con: duckdb.DuckDBPyConnection) -> int:
    """The memory limit of a connection in bytes."""
    ((text,),) = con.sql("SELECT current_setting('memory_limit')").fetchall()
    number, unit = text.split()
    return int(float(number) * _UNITS[unit])


def _width(kind: str) -> int:
    """About how many bytes a value takes while it is joined and handed out."""
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "BLOB", "JSON")):
        return 512
    return 64 if kind == "VARCHAR" else 16
