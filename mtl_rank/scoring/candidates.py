"""The rows to score as one checked snapshot: no key is missing, and duplicates are as the caller wants them."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from mtl_rank.data.prepare import serving_columns
from mtl_rank.errors import ConfigError, DataError, did_you_mean
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, ROW_NUMBER, Snapshot, open_snapshot, snapshot_rows
from mtl_rank.features.sql import Engine, quote, quote_all

_VIEW = "candidates"
_NUMBER = quote(ROW_NUMBER)
_CHOICES = {"duplicates": ("keep", "drop", "error"), "null_keys": ("error", "drop", "keep")}


@dataclass(frozen=True)
class Candidates:
    """Rows to score, numbered. dropped: how many were left out."""

    snapshot: Snapshot
    dropped: int


@dataclass(frozen=True)
class CandidateRules:
    """What becomes of rows that are not as they should be.

    duplicates: rows with the keys and the time of an earlier one: `keep` scores each, `drop` leaves the first,
        `error` raises.
    null_keys: rows without one of the join keys: `error` raises, `drop` leaves them out, `keep` scores them with
        the features of that key missing.

    Raises:
        ConfigError: a rule is none of its choices.
    """

    duplicates: str = "keep"
    null_keys: str = "error"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            given = getattr(self, name)
            if given not in choices:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} {given}: {did_you_mean(str(given), choices)}")


def snapshot_candidates(
    candidates: Any,
    project: Path,
    repository: FeatureRepository,
    rules: CandidateRules,
    folder: Path,
    as_of: datetime | None = None,
    carry: Sequence[str] = (),
) -> Candidates:
    """Copy candidates into `folder`, narrow and checked.

    candidates: as `snapshot_rows` takes them. as_of: the event timestamp of all; None = they bring their own.
    carry: columns to keep beside those that the features need.

    Raises:
        DataError: a column is missing, there are no rows, or a row breaks a rule that is `error`.
    """
    defaults = {
        spec.name: spec.at_scoring for spec in repository.schema.context if spec.at_scoring is not None
    }
    snapshot = snapshot_rows(
        candidates,
        project,
        [*serving_columns(repository), *carry],
        folder / "candidates.parquet",
        defaults=defaults,
        as_of=as_of,
    )
    shown = candidates if isinstance(candidates, str) else "the table"
    return _checked(snapshot, repository.schema.join_keys, rules, shown, folder)


def _checked(
    snapshot: Snapshot, keys: Sequence[str], rules: CandidateRules, shown: str, folder: Path
) -> Candidates:
    with Engine().connect() as con:
        con.read_parquet(glob.escape(str(snapshot.path))).create_view(_VIEW)
        without = _count_nulls(con, keys)
        if without and rules.null_keys == "error":
            key, count = next(iter(without.items()))
            raise DataError(
                f"{shown}: {count:,} of {snapshot.rows:,} rows have no {key!r}; "
                "give them one, or leave them out with --null-keys drop"
            )
        identity = [*keys, EVENT_TIMESTAMP]
        if rules.duplicates == "error":
            _refuse_duplicates(con, identity, shown)
        kept = "TRUE"
        if rules.null_keys == "drop" and without:
            kept = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
        if rules.duplicates == "drop":
            kept += f" QUALIFY row_number() OVER (PARTITION BY {quote_all(identity)} ORDER BY {_NUMBER}) = 1"
        if kept == "TRUE":
            return Candidates(snapshot, 0)
        out = folder / "kept.parquet"
        columns = quote_all(name for name in snapshot.columns if name != ROW_NUMBER)
        con.execute(
            f"COPY (SELECT {columns}, row_number() OVER (ORDER BY {_NUMBER}) - 1 AS {_NUMBER} "
            f"FROM (SELECT * FROM {_VIEW} WHERE {kept}) ORDER BY {_NUMBER}) "
            "TO $out (FORMAT parquet, COMPRESSION zstd)",
            {"out": str(out)},
        )
    left = open_snapshot(out, shown)
    return Candidates(left, snapshot.rows - left.rows)


def _count_nulls(con: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, int]:
    """Rows without each key; keys that every row has are left out."""
    if not keys:
        return {}
    counts = ", ".join(f"count(*) - count({quote(key)})" for key in keys)
    (found,) = con.sql(f"SELECT {counts} FROM {_VIEW}").fetchall()
    return {key: count for key, count in zip(keys, found, strict=True) if count}


def _refuse_duplicates(con: duckdb.DuckDBPyConnection, identity: Sequence[str], shown: str) -> None:
    found = con.sql(
        f"SELECT {quote_all(identity)}, count(*) AS n, sum(n - 1) OVER ()::BIGINT FROM {_VIEW} "
        f"GROUP BY {quote_all(identity)} HAVING n > 1 ORDER BY min({_NUMBER}) LIMIT 1"
    ).fetchall()
    if found:
        *values, times, extra = found[0]
        named = ", ".join(f"{name} {value}" for name, value in zip(identity, values, strict=True))
        raise DataError(
            f"{shown}: {extra:,} rows are duplicates; {named} is there {times} times.\n"
            "--duplicates drop keeps the first of each"
        )
