"""A Feast data source whose rows live in a DuckDB file: a table, or a query over the tables of that file.

user_stats = DuckDBSource(name="user_stats", path="data/shop.duckdb", table="user_stats", timestamp_field="ts")
"""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as SavedDatasetStorageProto
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.type_map import pa_to_feast_value_type
from feast.value_type import ValueType

from mtl_rank.errors import ConfigError, DataError, did_you_mean
from mtl_rank.features.duckdb_file import open_settled
from mtl_rank.features.relations import (
    Relation,
    arrow_types,
    columns_of,
    in_catalog,
    nothing_at,
    readable,
    single_select,
)
from mtl_rank.features.sql import Engine, operators, quote

# Operators of DuckDB that read tables, or nothing. A constant or an empty result may be what became of another file.
_IN_THE_FILE = {"SEQ_SCAN", "INDEX_SCAN", "DUMMY_SCAN", "CTE_SCAN", "REC_CTE_SCAN", "DELIM_SCAN", "RANGE"}


class DuckDBSource(DataSource):  # type: ignore[misc]
    """Rows of a DuckDB file, for DuckDBAsofOfflineStore.

    path: the database file; a relative one starts at the feature repository.
    table: `table` or `schema.table`. query: one SELECT over the tables of the file. Exactly one of the two.
    name: default: the table.
    Raises ConfigError when neither or both of table and query are given, or a query has no name.
    """

    def __init__(
        self,
        *,
        path: str,
        table: str | None = None,
        query: str | None = None,
        name: str | None = None,
        timestamp_field: str | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
    ) -> None:
        if (table is None) == (query is None):
            raise ConfigError(f"DuckDBSource {name or path!r}: give either table or query")
        if name is None and table is None:
            raise ConfigError(f"DuckDBSource of {path!r}: a query needs a name")
        super().__init__(
            name=name or table or "",
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )
        self.path = path
        self.table = table
        self.query = query

    def __hash__(self) -> int:
        return hash((self.name, self.timestamp_field))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DuckDBSource)
            and super().__eq__(other)
            and (self.path, self.table, self.query) == (other.path, other.table, other.query)
        )

    @property
    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> "DuckDBSource":
        options = json.loads(data_source.custom_options.configuration)
        return DuckDBSource(
            path=options["path"],
            table=options["table"],
            query=options["query"],
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
            field_mapping=dict(data_source.field_mapping),
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{DuckDBSource.__module__}.{DuckDBSource.__qualname__}",
            field_mapping=self.field_mapping,
            custom_options=_options(path=self.path, table=self.table, query=self.query),
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def validate(self, config: RepoConfig) -> None:
        """Raises DataError when the file or the table does not exist."""
        self.get_table_column_names_and_types(config)

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        value_type: Callable[[str], ValueType] = pa_to_feast_value_type
        return value_type

    def get_table_column_names_and_types(self, config: RepoConfig) -> list[tuple[str, str]]:
        """Column names and Arrow types, as Feast's file source gives them."""
        base = Path(config.repo_path or ".")
        with closing(Engine().connect()) as con:
            return arrow_types(con, duckdb_relation(con, "source", self, base, f"source {self.name!r}"))


class SavedDatasetDuckDBStorage(SavedDatasetStorage):  # type: ignore[misc]
    """A saved dataset in a table of a DuckDB file.

    path: the database file, created when it does not exist. table: `table` or `schema.table`.
    """

    _proto_attr_name = "custom_storage"

    def __init__(self, path: str, table: str) -> None:
        self.path = path
        self.table = table

    @staticmethod
    def from_proto(storage_proto: SavedDatasetStorageProto) -> "SavedDatasetDuckDBStorage":
        options = json.loads(storage_proto.custom_storage.configuration)
        return SavedDatasetDuckDBStorage(options["path"], options["table"])

    def to_proto(self) -> SavedDatasetStorageProto:
        proto: SavedDatasetStorageProto = self._custom_storage_proto(
            _options(path=self.path, table=self.table)
        )
        return proto

    def to_data_source(self) -> DuckDBSource:
        return DuckDBSource(path=self.path, table=self.table)


def duckdb_relation(
    con: duckdb.DuckDBPyConnection, name: str, source: DuckDBSource, base: Path, label: str
) -> Relation:
    """The rows of a table or a query of a DuckDB file, attached read-only as `name`.

    Raises DataError when the file or the table does not exist, or the query is not one SELECT.
    """
    with readable(label):
        attach(con, name, source, base, label)
        if source.table is not None:
            return _rows_of_table(con, name, source.table, label)
        sql = single_select(con, source.query or "", label)
        with in_catalog(con, name):
            return Relation(label, sql, columns_of(con, sql, {}), catalog=name)


def reads_its_file_alone(source: DuckDBSource, base: Path) -> bool:
    """Whether all that a source reads is in its DuckDB file; a view or a query may read parquet files, say, as well.

    Raises DataError as `duckdb_relation` does.
    """
    label = f"source {source.name!r}"
    with closing(Engine(search_path=base).connect()) as con, readable(label):
        relation = duckdb_relation(con, "source", source, base, label)
        if relation.position is not None:
            return True
        with in_catalog(con, relation.catalog):
            found = operators(con, f"SELECT * FROM {relation.sql} AS s")
            return all(name in _IN_THE_FILE for name, is_start in found if is_start)


def attach(
    con: duckdb.DuckDBPyConnection,
    name: str,
    source: DuckDBSource,
    base: Path,
    label: str,
    *,
    write: bool = False,
) -> None:
    """Attach the file of a source as `name`. write: it may be changed, and is created when it does not exist.

    Raises DataError when there is no file to read, duckdb.Error when another process holds it.
    """
    file = base / source.path
    if not write and not file.is_file():
        raise DataError(f"{label}: {nothing_at(file)}")
    # Without TYPE DuckDB would take a parquet or CSV file for a database of one table.
    mode = "READ_WRITE" if write else "READ_ONLY"
    open_settled(
        file,
        lambda: con.execute(f"ATTACH ? AS {quote(name)} ({mode}, TYPE duckdb)", [str(file)]),
        lambda _: con.execute(f"DETACH {quote(name)}"),
    )


def tables_of(con: duckdb.DuckDBPyConnection, name: str) -> dict[str, tuple[str, str]]:
    """The tables and views of an attached database: `table` (of schema main) or `schema.table` -> (SQL, kind)."""
    found = con.sql(
        "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_catalog = $name",
        params={"name": name},
    ).fetchall()
    tables = {}
    for schema, table, kind in found:
        sql = f"{quote(name)}.{quote(schema)}.{quote(table)}"
        tables[f"{schema}.{table}"] = (sql, kind)
        if schema == "main":
            tables[table] = (sql, kind)
    return tables


def _rows_of_table(con: duckdb.DuckDBPyConnection, name: str, table: str, label: str) -> Relation:
    tables = tables_of(con, name)
    if table not in tables:
        raise DataError(f"{label}: its DuckDB file has no table {table!r}; {did_you_mean(table, tables)}")
    sql, kind = tables[table]
    columns = columns_of(con, sql, {})
    if kind != "BASE TABLE":
        return Relation(label, sql, columns, catalog=name)
    last = con.sql(f"SELECT coalesce(max(rowid), 0) FROM {sql}").fetchall()[0][0]
    return Relation(label, sql, columns, "s.rowid", int(last).bit_length())


def _options(**options: str | None) -> DataSourceProto.CustomSourceOptions:
    return DataSourceProto.CustomSourceOptions(configuration=json.dumps(options).encode())
