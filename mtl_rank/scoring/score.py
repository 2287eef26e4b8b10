"""Candidates -> retrieve -> encode -> predict -> the scores table, one chunk after another."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from mtl_rank.data.prepare import as_polars, serving_columns
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import check_retrieval, retrieve
from mtl_rank.features.snapshot import Snapshot, snapshot_rows
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.sink import DuckDBSink
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget

CHUNK_ROWS = 131_072


@dataclass(frozen=True)
class ScoreSummary:
    """What a job did. rows: candidates in the table; written: those of this call; the rest was there before."""

    job_id: str
    run_id: str
    path: str
    table: str
    rows: int
    written: int
    seconds: float
    already_finished: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def score(
    predictor: Predictor,
    repository: FeatureRepository,
    project: Path,
    candidates: Any,
    target: ScoresTarget,
    as_of: datetime | None,
    replace: bool,
    wait: bool,
    folder: Path,
    reporter: Reporter,
) -> ScoreSummary:
    """Score candidates into a DuckDB table, each exactly once.

    The same run, candidates, time and table are the same job: run again, it continues after its last committed
    chunk, and changes nothing once it is finished.

    as_of: the time that features are read at; None = each candidate's own event_timestamp.
    wait: wait for the same job running elsewhere, rather than raise. folder: for temporary files.

    Raises MtlRankError before any chunk is written when the candidates or the table do not fit.
    """
    started = time.monotonic()
    snapshot = snapshot_rows(
        candidates,
        project,
        serving_columns(repository),
        folder / "candidates.parquet",
        defaults={
            spec.name: spec.at_scoring for spec in repository.schema.context if spec.at_scoring is not None
        },
        as_of=as_of,
    )
    check_retrieval(repository, snapshot)
    job_id = _job_id(predictor, snapshot, replace)
    keys = repository.schema.join_keys
    schema = ScoresSchema({key: snapshot.columns[key] for key in keys}, tuple(predictor.outputs))
    patience = Patience(job=float("inf") if wait else 0.0, notify=reporter.say)
    sink = DuckDBSink(
        target, schema, run_id=predictor.run.id, job_id=job_id, replace=replace, patience=patience
    )
    written = 0
    with sink:
        already_finished = sink.finished
        if not already_finished:
            try:
                written = _write(predictor, repository, snapshot, list(schema.given), sink, reporter)
            except KeyboardInterrupt:
                reporter.say(_how_to_continue(snapshot, sink, as_of))
                raise
    return ScoreSummary(
        job_id=job_id,
        run_id=predictor.run.id,
        path=str(target.path),
        table=target.table,
        rows=snapshot.rows,
        written=written,
        seconds=time.monotonic() - started,
        already_finished=already_finished,
    )


def _write(
    predictor: Predictor,
    repository: FeatureRepository,
    snapshot: Snapshot,
    columns: list[str],
    sink: DuckDBSink,
    reporter: Reporter,
) -> int:
    """Predict and commit every chunk that is not in the table yet; returns the rows written."""
    number = len(sink.committed)
    first_row = sum(chunk.rows for chunk in sink.committed.values())
    if first_row:
        reporter.say(f"continuing after {first_row:,} of {snapshot.rows:,} rows")
    reporter.stage("score", snapshot.rows)
    done = first_row
    if first_row < snapshot.rows:
        for table in _chunks(retrieve(repository, snapshot, first_row=first_row)):
            found = predictor.predict(as_polars(table))
            scores = table.select([name for name in columns if name not in found])
            for name, values in found.items():
                scores = scores.append_column(name, pa.array(values))
            sink.commit(Chunk(number, done, table.num_rows), scores)
            number += 1
            done += table.num_rows
            reporter.advance(done)
    sink.finish(number)
    return done - first_row


def _how_to_continue(snapshot: Snapshot, sink: DuckDBSink, as_of: datetime | None) -> str:
    committed = sum(chunk.rows for chunk in sink.committed.values())
    # Of `--as-of now` the next run would make another time, and so another job.
    time = f", with --as-of {as_of.isoformat()}" if as_of is not None else ""
    return (
        f"stopped: {committed:,} of {snapshot.rows:,} candidates are in the table; "
        f"the same command{time} continues"
    )


def _chunks(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The stream cut into chunks of exactly CHUNK_ROWS rows, the last one shorter."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while rows + batch.num_rows >= CHUNK_ROWS:
            missing = CHUNK_ROWS - rows
            yield pa.Table.from_batches([*waiting, batch.slice(0, missing)])
            batch, waiting, rows = batch.slice(missing), [], 0
        if batch.num_rows:
            waiting.append(batch)
            rows += batch.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting)


def _job_id(predictor: Predictor, snapshot: Snapshot, replace: bool) -> str:
    """A fingerprint of all that decides the table: the weights, the candidates with their times, the mode."""
    weights = hashlib.sha256(predictor.run.weights.read_bytes()).hexdigest()
    facts = [predictor.run.id, weights, snapshot.rows, snapshot.digest, CHUNK_ROWS, replace]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
