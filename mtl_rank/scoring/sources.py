"""Where the rows of a job come from: a list of candidates, or every pair of a list of users and one of items.

Either way a job is a fixed sequence of chunks, and any chunk can be made anew without those before it.
"""

import glob
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pyarrow as pa

from mtl_rank.data.prepare import serving_columns
from mtl_rank.durable import appearing
from mtl_rank.errors import ConfigError, DataError, did_you_mean
from mtl_rank.features.entity_rows import read_rows
from mtl_rank.features.online import read_online, retrieve_online
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import check_retrieval, read_rows_of, retrieve
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, ROW_NUMBER, SNAPSHOT_FORMAT, Snapshot, open_snapshot
from mtl_rank.features.sql import Engine, quote
from mtl_rank.scoring.candidates import (
    CandidateRules,
    chunks_of_keys,
    copying,
    even_chunks,
    snapshot_list,
)
from mtl_rank.scoring.ledger import Chunk

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_PAIRS_PER_ROW_OF_A_CHUNK = 8


@dataclass(frozen=True)
class Pairs:
    """Every user with every item. users, items: rows as candidates are given."""

    users: Any
    items: Any


@dataclass(frozen=True)
class Features:
    """Where the features of rows are read. online: the latest from the online store, instead of those of their time."""

    repository: FeatureRepository
    online: bool = False

    def of(self, snapshot: Snapshot, first_row: int = 0, last_row: int | None = None) -> pa.RecordBatchReader:
        """Some rows of a snapshot with their features, in their order."""
        read = retrieve_online if self.online else retrieve
        return read(self.repository, snapshot, first_row=first_row, last_row=last_row)

    def check(self, snapshot: Snapshot) -> None:
        """Raise MtlRankError for rows that do not fit, where that can be told without reading all."""
        if not self.online:
            check_retrieval(self.repository, snapshot)
            return
        for batch in read_rows_of(snapshot, last_row=1):
            read_online(self.repository, pa.Table.from_batches([batch]))


@dataclass(frozen=True)
class Piece:
    """Some retrieved rows of a chunk, in their order. last: no more of the chunk follow."""

    chunk: Chunk
    table: pa.Table
    last: bool


@dataclass(frozen=True)
class Wanted:
    """What a job needs of its rows.

    as_of: the event timestamp of all rows; None = they bring their own. carry: columns to keep beside those that the
    features need. per: columns whose equal values are to be in one chunk; () = none. chunk_rows: the size of a chunk.
    """

    rules: CandidateRules
    as_of: datetime | None
    carry: tuple[str, ...]
    per: tuple[str, ...]
    chunk_rows: int

    def columns(self, repository: FeatureRepository) -> list[str]:
        """The columns that rows must have, but for their time and for defaults."""
        extra = [name for name in (*self.carry, *self.per) if name != EVENT_TIMESTAMP]
        return list(dict.fromkeys([*serving_columns(repository), *extra]))


class Source(Protocol):
    """The rows of a job. digest: equal for equal rows in equal order. columns: name -> DuckDB type."""

    @property
    def rows(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def columns(self) -> Mapping[str, str]: ...
    @property
    def chunks(self) -> Sequence[Chunk]: ...

    def pieces(self, features: Features, chunks: Sequence[Chunk]) -> Iterator[Piece]:
        """Chunks that follow each other, with their features, a piece of at most `chunk_rows` rows at a time."""

    def moved(self, folder: Path) -> "Source":
        """The same rows, their files copied into a folder."""


def open_source(rows: Any, project: Path, features: Features, wanted: Wanted, folder: Path) -> Source:
    """Copy candidates or `Pairs` into `folder` and check them.

    Raises:
        DataError: a column is missing, there are no rows, or a row breaks a rule that is `error`.
    """
    make = _pairs if isinstance(rows, Pairs) else _candidates
    return make(rows, project, features, wanted, folder)


@dataclass(frozen=True)
class _Candidates:
    """A list of rows, read by one retrieval."""

    snapshot: Snapshot
    dropped: int
    chunks: Sequence[Chunk]
    piece_rows: int

    @property
    def rows(self) -> int:
        return self.snapshot.rows

    @property
    def digest(self) -> str:
        return self.snapshot.digest

    @property
    def columns(self) -> Mapping[str, str]:
        return self.snapshot.columns

    def pieces(self, features: Features, chunks: Sequence[Chunk]) -> Iterator[Piece]:
        if chunks:
            end = chunks[-1].first_row + chunks[-1].rows
            last_row = None if end == self.rows else end
            batches = features.of(self.snapshot, chunks[0].first_row, last_row)
            yield from _cut(batches, chunks, self.piece_rows)

    def moved(self, folder: Path) -> "_Candidates":
        return replace(self, snapshot=_copied(self.snapshot, folder))


@dataclass(frozen=True)
class _Pairs:
    """Each chunk is some users with all items; its pairs are written, retrieved and forgotten before the next."""

    users: Snapshot
    items: Snapshot
    dropped: int
    chunks: Sequence[Chunk]
    piece_rows: int
    folder: Path

    @property
    def rows(self) -> int:
        return self.users.rows * self.items.rows

    @property
    def digest(self) -> str:
        return f"{self.users.digest} {self.items.digest}"

    @property
    def columns(self) -> Mapping[str, str]:
        return {**self.items.columns, **self.users.columns}

    def pieces(self, features: Features, chunks: Sequence[Chunk]) -> Iterator[Piece]:
        for chunk in chunks:
            snapshot = self.block(chunk)
            yield from _cut(features.of(snapshot), [chunk], self.piece_rows)
            snapshot.path.unlink()

    def moved(self, folder: Path) -> "_Pairs":
        users, items = _copied(self.users, folder), _copied(self.items, folder)
        return replace(self, users=users, items=items, folder=folder)

    def block(self, chunk: Chunk) -> Snapshot:
        """The pairs of a chunk, a user's all together."""
        # Two processes of a cluster may be at one chunk.
        out = self.folder / f"pairs-{chunk.number}-{uuid4().hex}.parquet"
        number = quote(ROW_NUMBER)
        of_items = [name for name in self.items.columns if name not in (ROW_NUMBER, EVENT_TIMESTAMP)]
        select = [f"u.{quote(name)}" for name in self.users.columns if name != ROW_NUMBER]
        select += [f"i.{quote(name)}" for name in of_items]
        first = chunk.first_row // self.items.rows
        with copying("the pairs"), Engine().connect() as con:
            con.read_parquet(glob.escape(str(self.users.path))).create_view("u")
            con.read_parquet(glob.escape(str(self.items.path))).create_view("i")
            con.execute(
                f"COPY (SELECT {', '.join(select)}, (u.{number} - $first) * $items + i.{number} AS {number} "
                f"FROM u, i WHERE u.{number} >= $first AND u.{number} < $last ORDER BY u.{number}, i.{number}) "
                f"TO $out ({SNAPSHOT_FORMAT})",
                {
                    "first": first,
                    "last": first + chunk.rows // self.items.rows,
                    "items": self.items.rows,
                    "out": str(out),
                },
            )
        return open_snapshot(out, "the pairs")


def _candidates(rows: Any, project: Path, features: Features, wanted: Wanted, folder: Path) -> _Candidates:
    repository = features.repository
    found = snapshot_list(
        rows,
        project,
        wanted.columns(repository),
        folder / "candidates.parquet",
        wanted.rules,
        repository.schema.join_keys,
        _defaults(repository),
        wanted.as_of,
        sort=wanted.per,
    )
    features.check(found.snapshot)
    chunks = _chunks(found.snapshot, wanted.per, wanted.chunk_rows)
    return _Candidates(found.snapshot, found.dropped, chunks, wanted.chunk_rows)


def _pairs(rows: Pairs, project: Path, features: Features, wanted: Wanted, folder: Path) -> _Pairs:
    repository = features.repository
    columns = wanted.columns(repository)
    of_users, of_items = _columns_of(rows.users, project), _columns_of(rows.items, project)
    both = [name for name in columns if name in of_users and name in of_items]
    if both:
        raise DataError(f"--users and --items both have {both[0]!r}: leave it out of one")
    defaults = _defaults(repository)
    for name in columns:
        if name not in of_users and name not in of_items and name not in defaults:
            known = [*of_users, *of_items]
            raise DataError(f"--users and --items: no column {name!r}; {did_you_mean(name, known)}")
    elsewhere = [name for name in wanted.per if name != EVENT_TIMESTAMP and name not in of_users]
    if elsewhere:
        raise ConfigError(
            f"--per {elsewhere[0]}: pairs are ranked per user; {did_you_mean(elsewhere[0], of_users)}"
        )
    lists = []
    for name, part, as_of in (
        ("users", [name for name in columns if name not in of_items], wanted.as_of),
        ("items", [name for name in columns if name in of_items], _NO_TIME),
    ):
        keys = [key for key in repository.schema.join_keys if key in part]
        sort = wanted.per if name == "users" else ()
        given = rows.users if name == "users" else rows.items
        out = folder / f"{name}.parquet"
        lists.append(
            snapshot_list(given, project, part, out, wanted.rules, keys, defaults, as_of=as_of, sort=sort)
        )
    users, items = lists
    count = items.snapshot.rows
    users_at_once = max(1, wanted.chunk_rows * _PAIRS_PER_ROW_OF_A_CHUNK // count)
    chunks = [
        Chunk(some.number, some.first_row * count, some.rows * count)
        for some in _chunks(users.snapshot, wanted.per, users_at_once)
    ]
    dropped = users.dropped + items.dropped
    pairs = _Pairs(users.snapshot, items.snapshot, dropped, chunks, wanted.chunk_rows, folder)
    of_one_user = pairs.block(Chunk(0, 0, count))
    features.check(of_one_user)
    of_one_user.path.unlink()
    return pairs


def _copied(snapshot: Snapshot, folder: Path) -> Snapshot:
    """A copy that appears whole; one that is there already holds the same rows."""
    path = folder / f"rows-{snapshot.digest}.parquet"
    if not path.exists():
        with appearing(path) as partial:
            shutil.copyfile(snapshot.path, partial)
    return replace(snapshot, path=path)


def _chunks(snapshot: Snapshot, per: Sequence[str], size: int) -> list[Chunk]:
    return chunks_of_keys(snapshot, per, size) if per else even_chunks(snapshot.rows, size)


def _columns_of(rows: Any, project: Path) -> Mapping[str, str]:
    with Engine(search_path=project).connect() as con:
        return read_rows(con, "rows", rows, project).columns


def _defaults(repository: FeatureRepository) -> dict[str, Any]:
    return {spec.name: spec.at_scoring for spec in repository.schema.context if spec.at_scoring is not None}


def _cut(batches: pa.RecordBatchReader, chunks: Sequence[Chunk], piece_rows: int) -> Iterator[Piece]:
    """The stream in pieces that never reach over the end of a chunk."""
    plan = iter(
        (chunk, min(piece_rows, chunk.rows - start), start + piece_rows >= chunk.rows)
        for chunk in chunks
        for start in range(0, chunk.rows, piece_rows)
    )
    chunk, size, last = next(plan)
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while rows + batch.num_rows >= size:
            missing = size - rows
            yield Piece(chunk, pa.Table.from_batches([*waiting, batch.slice(0, missing)]), last)
            batch, waiting, rows = batch.slice(missing), [], 0
            following = next(plan, None)
            if following is None:
                return
            chunk, size, last = following
        if batch.num_rows:
            waiting.append(batch)
            rows += batch.num_rows
    raise DataError(f"retrieval ended before the last row of {chunk}")
