"""Data of the retrieval benchmark, made by DuckDB from hashes of row numbers: the same everywhere, always."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb

ROWS_PER_KEY = {"sparse": (10, 40), "dense": (100, 1000)}
DAYS = 60


@dataclass(frozen=True)
class View:
    """A feature view of the benchmark: its keys, its share of 9M feature rows and its features."""

    name: str
    keys: tuple[str, ...]
    share: int
    features: int
    created: bool
    ttl: timedelta | None


VIEWS = (
    View("user", ("user_id",), 2, 6, True, timedelta(days=7)),
    View("item", ("item_id",), 2, 4, False, None),
    View("pair", ("user_id", "category"), 5, 8, True, timedelta(days=3)),
)


def make_histories(folder: Path, kind: str, million: float) -> None:
    """Write the three sources, in the order of time. million: feature rows of the smaller two, in millions."""
    low, high = ROWS_PER_KEY[kind]
    mean, slope = (low + high) / 2, (high - low) / 2
    users = int(million * 1e6 / mean)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for seed, view in enumerate(VIEWS):
            rows = int(view.share / 2 * million * 1e6)
            # Rows per key rise evenly from the lowest to the highest number.
            share = f"(hash(i, {seed}) / 18446744073709551616.0)"
            root = f"sqrt({low**2} + {4 * slope * mean} * {share})"
            key = f"floor({rows / mean} * ({root} - {low}) / {2 * slope})::BIGINT"
            columns = {
                "user_id": f"k % {users}",
                "item_id": "k",
                "category": f"k // {users}",
            }
            selected = [f"{columns[name]} AS {name}" for name in view.keys]
            selected += [
                f"{_value(f'hash(i, {100 * seed + n + 10})', n)} AS f{n}" for n in range(view.features)
            ]
            if view.created:
                selected.append(f"ts + to_seconds(hash(i, {seed + 50}) % 3600) AS created")
            step = DAYS * 86400 * 1_000_000 // rows
            source = (
                f"SELECT i, {key} AS k, TIMESTAMPTZ '2026-01-01' + to_microseconds(i * {step}) AS ts "
                f"FROM range({rows}) AS t(i)"
            )
            con.execute(
                f"COPY (SELECT ts, {', '.join(selected)} FROM ({source})) TO '{folder / view.name}.parquet'"
            )


def make_rows(path: Path, kind: str, rows: int, million: float) -> None:
    """Write entity rows at random times, in no order."""
    users = int(million * 1e6 / (sum(ROWS_PER_KEY[kind]) / 2))
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(
            f"COPY (SELECT (hash(i, 7) % {users})::BIGINT AS user_id, (hash(i, 8) % {users})::BIGINT AS item_id, "
            f"(hash(i, 9) % 3)::BIGINT AS category, (hash(i, 11) % 2)::INTEGER AS label, TIMESTAMPTZ '2026-01-01' "
            f"+ to_microseconds((hash(i, 10) % {DAYS * 86400 * 1_000_000})::BIGINT) AS event_timestamp "
            f"FROM range({rows}) AS t(i)) TO '{path}'"
        )


def _value(number: str, position: int) -> str:
    return (
        f"({number} % 100000)::DOUBLE / 1000",
        f"({number} % 1000)::BIGINT",
        f"'v' || ({number} % 1000)",
    )[position % 3]
