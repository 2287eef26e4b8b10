"""Scores that were written before, joined to the labels that came since."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from mtl_rank.config import ProjectConfig
from mtl_rank.data.encoder import FeatureEncoder
from mtl_rank.data.labels import LabelReader
from mtl_rank.errors import DataError, RunError, did_you_mean
from mtl_rank.evaluation.classes import labels_by_output
from mtl_rank.evaluation.columns import (
    IDENTITY,
    check_rows,
    check_slice,
    cold_columns,
    gauc_key,
    identities,
)
from mtl_rank.evaluation.evaluate import finish
from mtl_rank.evaluation.outcomes import Collector, Doubles, Kind, Outcomes, outputs_of
from mtl_rank.evaluation.windows import Window
from mtl_rank.features.entity_rows import check_exact, read_rows
from mtl_rank.features.kinds import check_joinable
from mtl_rank.features.snapshot import EVENT_TIMESTAMP
from mtl_rank.features.sources import first_line
from mtl_rank.features.sql import Engine, instant, quote
from mtl_rank.progress import Reporter

RUN_ID = "run_id"
DEFAULT_TABLE = "scores"
_BATCH_ROWS = 65_536
_SCORED = "mtlrank scored"


@dataclass(frozen=True)
class Scored:
    """coverage: the share of labelled rows that have a score."""

    outcomes: Outcomes
    coverage: float


def run_of_scores(scores: str, base: Path) -> str | None:
    """The run that wrote a scores table; None when the table does not say.

    Raises DataError when the table cannot be read or holds the scores of several runs.
    """
    with _opened(scores, base) as (con, columns):
        if RUN_ID not in columns:
            return None
        runs = [run for (run,) in con.sql(f"SELECT DISTINCT {RUN_ID} FROM scores ORDER BY 1").fetchall()]
    if len(runs) > 1:
        raise DataError(
            f"--scores {scores}: holds {len(runs)} runs, {', '.join(runs)}; name one: mtlrank evaluate RUN"
        )
    return runs[0] if runs else None


def scored_rows(
    config: ProjectConfig,
    encoder: FeatureEncoder,
    project: Path,
    examples: Any,
    window: Window,
    scores: str,
    run_id: str,
    by: Sequence[str],
    folder: Path,
    reporter: Reporter,
) -> Scored:
    """Give every labelled row the newest score of its keys at or before its own time.

    scores: `scores.duckdb`, `file.duckdb:table`, a parquet path or one SELECT; relative paths start at `project`.
    by: columns of the examples. folder: for temporary files, which the outcomes live in.
    Rows without a score are left out and counted.

    Raises DataError when the table lacks columns of the run, has two scores for the same keys and time, holds what is
    no prediction, or fits no row.
    """
    keys = list(encoder.schema.join_keys)
    outputs = outputs_of(config)
    key = gauc_key(config, encoder.schema)
    labels = list(dict.fromkeys(task.label for task in config.tasks.values()))
    with _opened(scores, project) as (con, columns):
        _require(f"--scores {scores}", [*keys, EVENT_TIMESTAMP, *outputs], columns)
        check_rows(examples, project)
        rows = read_rows(con, "rows", examples, project).columns
        wanted = list(dict.fromkeys([*keys, key, *labels, *by]))
        _require(f"{examples}", [EVENT_TIMESTAMP, *wanted], rows)
        for name in by:
            check_slice(name, rows[name])
        for name in keys:
            check_joinable(name, rows[name], name, columns[name], f"--scores {scores}")
            check_exact(con, "rows", name, (rows[name], columns[name]), f"--scores {scores}")
        _only_run(con, columns, run_id, scores)
        _check_unique(con, keys, scores)
        _only_window(con, window)
        ((total,),) = con.sql("SELECT count(*) FROM wanted").fetchall()
        joined = con.sql(_join_sql(keys, wanted, outputs))
        collector, nulls = Collector(config, folder), Counter[str]()
        reporter.stage(f"join {window.name}", total)
        done = 0
        for batch in joined.to_arrow_reader(_BATCH_ROWS):
            found = pl.DataFrame(pl.from_arrow(batch))
            done += found.height
            scored = found.filter(pl.col(_SCORED).is_not_null())
            nulls.update({name: scored[f"prediction {i}"].null_count() for i, name in enumerate(outputs)})
            if scored.height and not nulls.total():
                _collect(config, encoder, collector, scored, outputs, key, by)
            reporter.advance(done)
        for name, count in nulls.items():
            if count:
                raise DataError(
                    f"--scores {scores}: column {name!r} is null on {count:,} of the rows with a score"
                )
        if not collector.rows:
            raise DataError(_no_match(con, scores, total))
    return Scored(finish(config, key, collector, {}), collector.rows / total)


def _collect(
    config: ProjectConfig,
    encoder: FeatureEncoder,
    collector: Collector,
    scored: pl.DataFrame,
    outputs: Mapping[str, Kind],
    key: str,
    by: Sequence[str],
) -> None:
    labels = LabelReader(config.tasks).read(scored)
    predictions = {
        name: _predictions(name, kind, scored[f"prediction {i}"])
        for i, (name, kind) in enumerate(outputs.items())
    }
    collector.add(
        labels=labels_by_output(labels, config),
        predictions=predictions,
        columns={
            "group": scored[key],
            "time": scored[EVENT_TIMESTAMP],
            IDENTITY: identities(scored, encoder.schema.join_keys),
            **{f"by {name}": scored[name] for name in by},
            **{f"by {name}": values for name, values in cold_columns(encoder, scored).items()},
        },
        uncalibrated={},
        baselines={},
    )


def _predictions(name: str, kind: Kind, column: pl.Series) -> Doubles:
    """Raises DataError for values that the run cannot have predicted."""
    if not column.dtype.is_numeric():
        raise DataError(f"--scores: column {name!r} is {column.dtype}, it must be numbers")
    values: Doubles = column.cast(pl.Float64).to_numpy()
    odd = values[~np.isfinite(values)]
    if len(odd):
        raise DataError(f"--scores: column {name!r} holds {odd[0]}, which is no finite number")
    odd = values[(values < 0) | (values > 1)] if kind == "binary" else odd
    if len(odd):
        raise DataError(f"--scores: column {name!r} holds {odd[0]:g}; a probability lies between 0 and 1")
    return values


@contextmanager
def _opened(scores: str, base: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Mapping[str, str]]]:
    """A connection with the view `scores`, and its columns."""
    text = scores.strip()
    if text.endswith((".duckdb", ".ddb", ".db")):
        text = f"{text}:{DEFAULT_TABLE}"
    with closing(Engine(search_path=base).connect()) as con:
        try:
            columns = read_rows(con, "scores", text, base).columns
        except DataError as error:
            raise DataError(f"--scores {scores}: {str(error).removeprefix('entity rows: ')}") from None
        try:
            yield con, columns
        except duckdb.Error as error:
            raise DataError(f"--scores {scores}: {first_line(error)}") from None


def _require(where: str, wanted: Sequence[str], columns: Mapping[str, str]) -> None:
    for name in wanted:
        if name not in columns:
            raise DataError(f"{where}: no column {name!r}; {did_you_mean(name, columns)}")


def _only_run(con: duckdb.DuckDBPyConnection, columns: Mapping[str, str], run_id: str, scores: str) -> None:
    """Make the view `of_run`."""
    stamped = RUN_ID in columns
    if stamped:
        con.sql("SELECT * FROM scores WHERE run_id = $run", params={"run": run_id}).create_view("of_run")
    else:
        con.table("scores").create_view("of_run")
    if con.sql("SELECT 1 FROM of_run LIMIT 1").fetchall():
        return
    others = (
        [run for (run,) in con.sql(f"SELECT DISTINCT {RUN_ID} FROM scores").fetchall()] if stamped else []
    )
    raise RunError(f"--scores {scores}: has no score of run {run_id}; {did_you_mean(run_id, others)}")


def _check_unique(con: duckdb.DuckDBPyConnection, keys: Sequence[str], scores: str) -> None:
    columns = ", ".join(quote(name) for name in [*keys, EVENT_TIMESTAMP])
    twice = con.sql(
        f"SELECT {columns}, count(*) FROM of_run GROUP BY {columns} HAVING count(*) > 1 LIMIT 1"
    ).fetchall()
    if twice:
        *values, count = twice[0]
        shown = ", ".join(f"{name} {value}" for name, value in zip([*keys, "time"], values, strict=True))
        raise DataError(
            f"--scores {scores}: {shown} is there {count} times; keep one score for the same keys and time"
        )


def _only_window(con: duckdb.DuckDBPyConnection, window: Window) -> None:
    """Make the view `wanted`: the labelled rows of the window, their times in UTC."""
    time = instant(quote(EVENT_TIMESTAMP))
    bounds = {"start": (">=", window.start), "end": ("<", window.end)}
    conditions = [f"{time} {sign} ${name}" for name, (sign, value) in bounds.items() if value is not None]
    values = {name: value for name, (_, value) in bounds.items() if value is not None}
    where = " AND ".join([f"{time} IS NOT NULL", *conditions])
    sql = f"SELECT * REPLACE ({time} AS {quote(EVENT_TIMESTAMP)}) FROM rows WHERE {where}"
    con.sql(sql, params=values or None).create_view("wanted")


def _join_sql(keys: Sequence[str], wanted: Sequence[str], outputs: Iterable[str]) -> str:
    time = quote(EVENT_TIMESTAMP)
    kept = ", ".join(f"w.{quote(name)}" for name in [*wanted, EVENT_TIMESTAMP])
    predicted = ", ".join(f"s.{quote(name)} AS {quote(f'prediction {i}')}" for i, name in enumerate(outputs))
    same = " AND ".join(f"w.{quote(key)} = s.{quote(key)}" for key in keys)
    # A null prediction is not the same as no score: rows that were found are marked.
    scored = f"(SELECT * REPLACE ({instant(time)} AS {time}), true AS {quote(_SCORED)} FROM of_run)"
    select = f"SELECT {kept}, {predicted}, s.{quote(_SCORED)} FROM wanted w"
    return f"{select} ASOF LEFT JOIN {scored} s ON {same} AND w.{time} >= s.{time}"


def _no_match(con: duckdb.DuckDBPyConnection, scores: str, total: int) -> str:
    if not total:
        return "no labelled row lies in the window"
    time = instant(quote(EVENT_TIMESTAMP))
    (first, last), (start, end) = (
        con.sql(f"SELECT min({time}), max({time}) FROM {table}").fetchall()[0]
        for table in ("of_run", "wanted")
    )
    return (
        f"--scores {scores}: none of the {total:,} labelled rows has a score of its keys at or before its time; "
        f"scores run from {first} to {last}, labelled rows from {start} to {end}"
    )
