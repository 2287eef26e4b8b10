"""What is written and where: the scores table and its columns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa

from mtl_rank.errors import ScoresError
from mtl_rank.features.sql import quote, quote_all

_STAMPS = {"run_id": "VARCHAR", "job_id": "VARCHAR", "scored_at": "TIMESTAMP WITH TIME ZONE"}


@dataclass(frozen=True)
class ScoresTarget:
    """A table of a DuckDB file. Any text is a table name: dots, quotes and spaces are part of it.

    Raises:
        ScoresError: the table has no name.
    """

    path: Path
    table: str = "scores"

    def __post_init__(self) -> None:
        if not self.table.strip() or "\0" in self.table:
            raise ScoresError(f"{self.table!r} is no name for a scores table: choose another")

    def __str__(self) -> str:
        return f"table {self.table!r} of {self.path}"

    @property
    def ledger(self) -> str:
        """The table with one row per job and one per committed chunk."""
        return f"{self.table}_jobs"

    def staging(self, job_id: str) -> str:
        """The table a replacing job fills before it takes the place of the scores table."""
        return f"{self.table}__{job_id}"


@dataclass(frozen=True)
class ScoresSchema:
    """The columns of a scores table: carried keys, event_timestamp, one DOUBLE per output, the job's stamps.

    carried: candidate columns copied to the scores, name -> DuckDB type. outputs: tasks and chain products.
    added: what is computed from both, name -> DuckDB type.

    Raises:
        ScoresError: two columns would share a name (DuckDB ignores case), or a type is unknown.
    """

    carried: Mapping[str, str]
    outputs: tuple[str, ...]
    added: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [*self.carried, "event_timestamp", *self.outputs, *self.added, *_STAMPS]
        seen: set[str] = set()
        for name in names:
            if name.lower() in seen:
                raise ScoresError(
                    f"the scores table would have two columns {name!r}: rename the candidates' column or the task"
                )
            seen.add(name.lower())
        for name, kind in self.carried.items():
            _spelled(name, kind)

    @cached_property
    def given(self) -> dict[str, str]:
        """The columns every chunk brings: name -> type as DuckDB spells it."""
        carried = {name: _spelled(name, kind) for name, kind in self.carried.items()}
        timestamp = {"event_timestamp": "TIMESTAMP WITH TIME ZONE"}
        return carried | timestamp | dict.fromkeys(self.outputs, "DOUBLE") | dict(self.added)

    @cached_property
    def columns(self) -> dict[str, str]:
        """All columns in order, with the stamps run_id, job_id and scored_at that the sink adds."""
        return self.given | _STAMPS

    def misfit(self, existing: Mapping[str, str]) -> str | None:
        """How a table with these columns differs, in half a sentence naming the columns; None if it fits."""
        wanted = {name.lower(): (name, kind) for name, kind in self.columns.items()}
        found = {name.lower(): (name, kind) for name, kind in existing.items()}
        missing = [name for key, (name, _) in wanted.items() if key not in found]
        extra = [name for key, (name, _) in found.items() if key not in wanted]
        other = [
            f"{name} is {found[key][1]} instead of {kind}"
            for key, (name, kind) in wanted.items()
            if key in found and found[key][1] != kind
        ]
        parts = [
            f"without column {', '.join(missing)}" if missing else "",
            f"with unexpected column {', '.join(extra)}" if extra else "",
            ", ".join(other),
        ]
        return "; ".join(part for part in parts if part) or None


def duckdb_types(schema: pa.Schema) -> dict[str, str]:
    """The DuckDB type of each Arrow column, as `ScoresSchema.carried` wants it; a dictionary counts as its values."""
    plain = pa.schema(
        [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in schema
        ]
    )
    with duckdb.connect(":memory:") as con:
        types = con.from_arrow(plain.empty_table()).types
    return dict(zip(plain.names, map(str, types), strict=True))


def create_table(
    con: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str], key: Iterable[str] = ()
) -> None:
    """Create a table unless it exists; the types are DuckDB's own spelling, as in `ScoresSchema.columns`."""
    parts = [f"{quote(name)} {kind}" for name, kind in columns.items()]
    if key:
        parts.append(f"PRIMARY KEY ({quote_all(key)})")
    con.execute(f"CREATE TABLE IF NOT EXISTS {quote(table)} ({', '.join(parts)})")


def columns_of(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str] | None:
    """Name -> type of an existing table or view, as last committed; None if there is none."""
    # Asked beside the caller's transaction, which a failed look-up would abort. Asking duckdb_columns() instead
    # never fails, but it takes 20 ms where this takes one.
    with con.cursor() as beside:
        try:
            rows = beside.execute("SELECT name, type FROM pragma_table_info(?)", [quote(table)]).fetchall()
        except duckdb.CatalogException:
            return None
    return dict(rows)


def is_view(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether the name is that of a view."""
    views = con.execute(
        "SELECT view_name FROM duckdb_views() WHERE database_name = current_database()"
    ).fetchall()
    # DuckDB ignores the case of ASCII letters in names, and of no others.
    return name.encode().lower() in {view.encode().lower() for (view,) in views}


def _spelled(name: str, kind: str) -> str:
    # A round trip through DuckDB's own parser: what reaches SQL text afterwards can be nothing but a type.
    try:
        return str(duckdb.type(kind))
    except duckdb.Error:
        raise ScoresError(f"column {name!r} of the scores table: DuckDB has no type {kind!r}") from None
