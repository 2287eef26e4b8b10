"""Entity rows: the keys and times that features are wanted for, in whatever form they come.

A pandas, Polars or Arrow table; a parquet file, folder or glob; a SELECT for DuckDB; a table of a DuckDB file.
"""

import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa

from mtl_rank.errors import DataError
from mtl_rank.features.sources import Table, first_line, read_parquet, register

_DUCKDB_TABLE = re.compile(r"(?P<file>.+\.(?:duckdb|ddb|db)):(?P<table>[^:]+)")


def read_rows(con: duckdb.DuckDBPyConnection, name: str, rows: Any, base: Path) -> Table:
    """Register entity rows under `name`.

    rows: a pandas.DataFrame, polars.DataFrame, polars.LazyFrame or pyarrow.Table; or text: a parquet path or glob,
        a SELECT statement, or `file.duckdb:table`. Relative paths start at `base`.
    Raises DataError when the rows cannot be read.
    """
    if isinstance(rows, str):
        return register(con, name, _from_text(con, rows, base))
    table = as_arrow(rows)
    if len(set(table.column_names)) < table.num_columns:
        twice = sorted({column for column in table.column_names if table.column_names.count(column) > 1})
        raise DataError(
            f"entity rows: two columns are named {', '.join(map(repr, twice))}. Rename or drop one"
        )
    con.register(f"{name} arrow", table)
    return register(con, name, con.table(f"{name} arrow"))


def as_arrow(rows: Any) -> pa.Table:
    """A table in memory as Arrow. Raises DataError for anything that is not one."""
    if isinstance(rows, pa.Table):
        table = rows
    elif isinstance(rows, pd.DataFrame):
        table = pa.Table.from_pandas(rows, preserve_index=False)
    elif isinstance(rows, pl.LazyFrame):
        table = rows.collect().to_arrow()
    elif isinstance(rows, pl.DataFrame):
        table = rows.to_arrow()
    else:
        raise DataError(
            f"entity rows: {type(rows).__name__} is not a table. "
            "Give a pandas, Polars or Arrow table, a parquet path, or SQL"
        )
    return table


def _from_text(con: duckdb.DuckDBPyConnection, text: str, base: Path) -> duckdb.DuckDBPyRelation:
    if text.endswith(".parquet") or (base / text).is_dir():
        return read_parquet(con, text, base, "entity rows")
    try:
        statements = con.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise DataError("entity rows: the SQL must be one SELECT statement")
        return con.sql(statements[0].query)
    except duckdb.Error as error:
        raise DataError(f"entity rows: the SQL cannot be run: {first_line(error)}") from error
