"""Candidates -> retrieve -> encode -> predict -> the scores table, one chunk after another."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from mtl_rank.data.prepare import as_polars
from mtl_rank.errors import RunError
from mtl_rank.features.definitions import differences, read_definitions, service_definitions
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import check_retrieval, retrieve
from mtl_rank.features.snapshot import Snapshot
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter
from mtl_rank.scoring.candidates import CandidateRules, Candidates, snapshot_candidates
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk, Details
from mtl_rank.scoring.measures import Measures, stability_index, views_of
from mtl_rank.scoring.sink import DuckDBSink
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget

CHUNK_ROWS = 131_072
_SHOWN_DIFFERENCES = 3


@dataclass(frozen=True)
class ScoreOptions:
    """How candidates are scored.

    as_of: the time that features are read at; None = each candidate's own event_timestamp.
    replace: put the new scores in the place of all that the table holds.
    wait: wait for the same job running elsewhere, rather than raise.
    rules: what becomes of duplicates and of rows without a key.
    allow_changed_features: score although the feature service is not as it was when the run was trained.
    """

    as_of: datetime | None = None
    replace: bool = False
    wait: bool = True
    rules: CandidateRules = field(default_factory=CandidateRules)
    allow_changed_features: bool = False


@dataclass(frozen=True)
class ScoreSummary:
    """What a job did.

    rows: candidates in the table; written: those of this call; the rest was there before. dropped: candidates left
    out. missing: by view, the share of rows for which it had no value. psi: by task, the population stability index
    against the last finished job of the table, `compared_with`; None = there is none to compare with.
    """

    job_id: str
    run_id: str
    path: str
    table: str
    rows: int
    written: int
    seconds: float
    already_finished: bool
    dropped: int = 0
    as_of: str | None = None
    missing: Mapping[str, float] = field(default_factory=dict)
    psi: Mapping[str, float | None] = field(default_factory=dict)
    compared_with: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def score(
    predictor: Predictor,
    repository: FeatureRepository,
    project: Path,
    candidates: Any,
    target: ScoresTarget,
    options: ScoreOptions,
    folder: Path,
    reporter: Reporter,
) -> ScoreSummary:
    """Score candidates into a DuckDB table, each exactly once.

    The same run, candidates, time and table are the same job: run again, it continues after its last committed
    chunk, and changes nothing once it is finished.

    folder: for temporary files.

    Raises MtlRankError before any chunk is written when the candidates, the features or the table do not fit.
    """
    started = time.monotonic()
    if not options.allow_changed_features:
        _refuse_changed_features(predictor, repository)
    found = snapshot_candidates(candidates, project, repository, options.rules, folder, options.as_of)
    snapshot = found.snapshot
    check_retrieval(repository, snapshot)
    keys = repository.schema.join_keys
    schema = ScoresSchema({key: snapshot.columns[key] for key in keys}, tuple(predictor.outputs))
    sink = DuckDBSink(
        target,
        schema,
        run_id=predictor.run.id,
        job_id=_job_id(predictor, snapshot, options.replace),
        replace=options.replace,
        patience=Patience(job=float("inf") if options.wait else 0.0, notify=reporter.say),
        details=_begun(found, options),
    )
    job = _Job(predictor, repository, snapshot, schema, sink, reporter)
    with sink:
        already_finished = sink.finished
        try:
            written = 0 if already_finished else job.run()
        except KeyboardInterrupt:
            reporter.say(_how_to_continue(snapshot, sink, options.as_of))
            raise
    state = sink.state()
    assert state is not None
    return ScoreSummary(
        job_id=state.job_id,
        run_id=state.run_id,
        path=str(target.path),
        table=target.table,
        rows=state.rows,
        written=written,
        seconds=time.monotonic() - started,
        already_finished=already_finished,
        **{name: state.details[name] for name in _REPORTED if name in state.details},
    )


_REPORTED = ("dropped", "as_of", "missing", "psi", "compared_with")


@dataclass(frozen=True)
class _Job:
    """One job that holds its place in the table."""

    predictor: Predictor
    repository: FeatureRepository
    snapshot: Snapshot
    schema: ScoresSchema
    sink: DuckDBSink
    reporter: Reporter

    def run(self) -> int:
        """Predict and commit every chunk that is not in the table yet; returns the rows written."""
        number = len(self.sink.committed)
        first_row = sum(chunk.rows for chunk in self.sink.committed.values())
        total = self.snapshot.rows
        if first_row:
            self.reporter.say(f"continuing after {first_row:,} of {total:,} rows")
        self.reporter.stage("score", total)
        done = first_row
        if first_row < total:
            for table in _chunks(retrieve(self.repository, self.snapshot, first_row=first_row)):
                scores, measures = self._score(table)
                self.sink.commit(Chunk(number, done, table.num_rows), scores, measures.as_dict())
                number += 1
                done += table.num_rows
                self.reporter.advance(done)
        self.sink.finish(number, self._finished())
        return done - first_row

    def _score(self, table: pa.Table) -> tuple[pa.Table, Measures]:
        frame = as_polars(table)
        found = self.predictor.predict(frame)
        scores = table.select([name for name in self.schema.given if name not in found])
        for name, values in found.items():
            scores = scores.append_column(name, pa.array(values))
        return scores, Measures.of(frame, found, views_of(self.repository), self._probabilities())

    def _probabilities(self) -> dict[str, bool]:
        return {name: task.kind == "binary" for name, task in self.predictor.config.tasks.items()}

    def _finished(self) -> Details:
        """What the ledger keeps of the job: its counts, and how far they are from those of the last job."""
        state = self.sink.state()
        assert state is not None
        mine = Measures.total(map(Measures.from_dict, self.sink.chunk_details()))
        before = next(
            (job for job in self.sink.jobs() if "measures" in job.details and job.job_id != state.job_id),
            None,
        )
        old = Measures.from_dict(before.details["measures"]).cells if before else {}
        return {
            **self.sink.details,
            "missing": mine.missing_rates,
            "psi": {task: stability_index(old.get(task, {}), cells) for task, cells in mine.cells.items()},
            "compared_with": before.job_id if before else None,
            "measures": mine.as_dict(),
        }


def _begun(candidates: Candidates, options: ScoreOptions) -> Details:
    return {
        "candidates": candidates.snapshot.rows,
        "dropped": candidates.dropped,
        "as_of": options.as_of.isoformat() if options.as_of else None,
    }


def _refuse_changed_features(predictor: Predictor, repository: FeatureRepository) -> None:
    before = read_definitions(predictor.run.folder)
    changed = differences(before, service_definitions(repository)) if before else []
    if changed:
        shown = "; ".join(changed[:_SHOWN_DIFFERENCES])
        more = len(changed) - _SHOWN_DIFFERENCES
        raise RunError(
            f"feature service {repository.service.name} changed since run {predictor.run.id} was trained: {shown}"
            f"{f' and {more} more' if more > 0 else ''}.\nTrain anew, or score all the same with "
            "--allow-changed-features"
        )


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
