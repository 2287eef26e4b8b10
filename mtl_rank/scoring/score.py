"""One scoring job from its options to its summary: what it is, what it refuses, where it continues."""

import hashlib
import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mtl_rank.errors import ConfigError, RunError, ScoresError
from mtl_rank.features.definitions import differences, fingerprint, read_definitions, service_definitions
from mtl_rank.features.interrupts import interruptible
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.snapshot import EVENT_TIMESTAMP
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter
from mtl_rank.scoring.candidates import CandidateRules
from mtl_rank.scoring.chunks import Engine, LocalEngine
from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.expression import RankExpression
from mtl_rank.scoring.job import check_pushed, run_job
from mtl_rank.scoring.ledger import Details
from mtl_rank.scoring.pipeline import Clock
from mtl_rank.scoring.push import open_push
from mtl_rank.scoring.ranking import Ranking, check_columns
from mtl_rank.scoring.ray_engine import (
    Assignment,
    Cluster,
    RayEngine,
    check_ray,
    parts_folder,
    remove_parts,
)
from mtl_rank.scoring.shared_files import refuse_shared_files
from mtl_rank.scoring.sinks import Sink, Target, open_sink
from mtl_rank.scoring.sources import Features, Source, Wanted, open_source
from mtl_rank.scoring.table import ScoresSchema, ScoresTarget

# A row group of DuckDB, which goes to the file as it is; one that is not full is written anew with the next chunk.
CHUNK_ROWS = 122_880
_SHOWN_DIFFERENCES = 3
# Whoever stops a job does not wait for a file that others have open.
_SECONDS_TO_TELL = 2.0


@dataclass(frozen=True)
class ScoreOptions:
    """How candidates are scored.

    as_of: the time that features are read at; None = each candidate's own event_timestamp.
    replace: put the new scores in the place of all that the table holds.
    wait: wait for the same job running elsewhere, rather than raise.
    rules: what becomes of duplicates and of rows without a key.
    carry: columns of the candidates to copy to the scores, beside the keys.
    rank_by: an expression over outputs and carried columns that orders the candidates of a key, the largest first.
    per: the columns that make a key; () = the project's user_key, or the first join key.
    top_k: how many of each key are kept; None = all.
    allow_changed_features: score although the feature service is not as it was when the run was trained.
    again: a word that makes another job of this one, to score anew what was scored before.
    online: read the latest features from the online store, instead of those known at each row's time.
    push: a feature view that the scores are written to as well; None = none.
    cluster: score in tasks of Ray; None = in this process.

    Raises:
        ConfigError: per or top_k without rank_by, or null keys kept where the online store is asked for them.
    """

    as_of: datetime | None = None
    replace: bool = False
    wait: bool = True
    rules: CandidateRules = field(default_factory=CandidateRules)
    carry: tuple[str, ...] = ()
    rank_by: str | None = None
    per: tuple[str, ...] = ()
    top_k: int | None = None
    allow_changed_features: bool = False
    again: str | None = None
    online: bool = False
    push: str | None = None
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        if self.rank_by is None and (self.per or self.top_k is not None):
            option = "--top-k" if self.top_k is not None else "--per"
            raise ConfigError(f"{option} needs --rank-by: an expression such as ctr, or ctr * cvr ** 0.5")
        if self.online and self.rules.null_keys == "keep":
            raise ConfigError(
                "--null-keys keep: the online store is asked by key; leave such rows out by drop"
            )
        if self.cluster is not None:
            check_ray()


@dataclass(frozen=True)
class ScoreSummary:
    """What a job did.

    rows: candidates scored; written: those of this call; the rest was there before. kept: rows in the table, fewer
    where only the best of each key are. dropped: candidates left out before. missing: by view, the share of rows
    for which it had no value. psi: by task, the population stability index against the last finished job of the
    table, `compared_with`; None = there is none to compare with. profile: seconds that each stage was busy in this
    call; stages work at the same time, so their sum may exceed the seconds of the job.
    """

    job_id: str
    run_id: str
    path: str
    table: str | None
    rows: int
    written: int
    seconds: float
    already_finished: bool
    profile: Mapping[str, float]
    kept: int = 0
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
    target: Target,
    options: ScoreOptions,
    folder: Path,
    reporter: Reporter,
) -> ScoreSummary:
    """Score candidates into a DuckDB table or parquet, each exactly once.

    The same run, candidates, time, options, feature definitions and table are the same job: run again, it continues
    after its last committed chunk, and changes nothing once it is finished. What features hold is no part of it.

    folder: for temporary files.

    Raises MtlRankError before any chunk is written when the candidates, the features or the table do not fit.
    """
    started = time.monotonic()
    if not options.allow_changed_features:
        _refuse_changed_features(predictor, repository)
    if not options.online:
        refuse_shared_files(repository, target, options.push)
    ranking = _ranking(predictor, repository, options)
    clock = Clock()
    wanted = Wanted(options.rules, options.as_of, options.carry, ranking.per if ranking else (), CHUNK_ROWS)
    features = Features(repository, options.online)
    with clock("candidates"):
        source = open_source(candidates, project, features, wanted, folder)
    if ranking:
        check_columns(ranking.expression, {**source.columns, **dict.fromkeys(predictor.outputs, "DOUBLE")})
    schema = _schema(predictor, repository, source, options, ranking)
    push = open_push(repository.store, options.push, schema) if options.push is not None else None
    sink = open_sink(
        target,
        schema,
        run_id=predictor.run.id,
        job_id=_job_id(predictor, repository, source, options, ranking),
        replace=options.replace,
        patience=Patience(job=float("inf") if options.wait else 0.0, notify=reporter.say),
        details=_begun(source, options),
    )
    parts = parts_folder(target.path.resolve(), sink.job_id)
    try:
        with interruptible(), sink:
            already_finished = sink.finished
            check_pushed(sink, options.push)
            written = 0
            if not already_finished:
                engine = LocalEngine(source, features, predictor, tuple(schema.given), ranking)
                chosen = _on_cluster(engine, options.cluster, parts) if options.cluster else engine
                written = run_job(chosen, source, sink, push, reporter, clock)
        # Also those of a driver that was killed between its last commit and this line.
        remove_parts(parts)
    except KeyboardInterrupt as stopped:
        # It may have come between the opening of the file and the line that would close it.
        traceback.clear_frames(stopped.__traceback__)
        reporter.say(_how_to_continue(source, sink, options.as_of))
        raise
    state = sink.state()
    if state is None:
        raise ScoresError(
            f"{target}: the scores of job {sink.job_id} were replaced as soon as it had finished"
        )
    return ScoreSummary(
        job_id=state.job_id,
        run_id=state.run_id,
        path=str(target.path),
        table=target.table if isinstance(target, ScoresTarget) else None,
        rows=state.rows,
        written=written,
        seconds=time.monotonic() - started,
        already_finished=already_finished,
        profile={stage: round(seconds, 3) for stage, seconds in clock.seconds.items()},
        **{name: state.details[name] for name in _REPORTED if name in state.details},
    )


_REPORTED = ("kept", "dropped", "as_of", "missing", "psi", "compared_with")


def _ranking(predictor: Predictor, repository: FeatureRepository, options: ScoreOptions) -> Ranking | None:
    if options.rank_by is None:
        return None
    keys = repository.schema.join_keys
    per = options.per or (
        (predictor.config.user_key or keys[0],) if predictor.config.user_key or keys else ()
    )
    if not per:
        raise ConfigError("--rank-by: the feature service has no join key; say --per COLUMN")
    expression = RankExpression.parse(options.rank_by, [*predictor.outputs, *options.carry])
    return Ranking(expression, per, options.top_k, tuple(keys))


def _schema(
    predictor: Predictor,
    repository: FeatureRepository,
    source: Source,
    options: ScoreOptions,
    ranking: Ranking | None,
) -> ScoresSchema:
    names = dict.fromkeys([*repository.schema.join_keys, *(ranking.per if ranking else ()), *options.carry])
    carried = {name: source.columns[name] for name in names if name != EVENT_TIMESTAMP}
    return ScoresSchema(carried, tuple(predictor.outputs), ranking.columns if ranking else {})


def _begun(source: Source, options: ScoreOptions) -> Details:
    return {
        "candidates": source.rows,
        "dropped": source.dropped,
        "as_of": options.as_of.isoformat() if options.as_of else None,
        "rank_by": options.rank_by,
        "features": "online" if options.online else "offline",
        "push": options.push,
    }


def _on_cluster(local: LocalEngine, cluster: Cluster, folder: Path) -> Engine:
    """The engine that scores in tasks what `local` would. folder: for what driver and workers share."""
    folder.mkdir(exist_ok=True)
    assignment = Assignment(
        local.predictor.run.folder.resolve(),
        local.predictor.precision,
        local.features.online,
        local.source.moved(folder),
        local.columns,
        local.ranking,
    )
    return RayEngine(assignment, cluster, folder)


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


def _how_to_continue(source: Source, sink: Sink, as_of: datetime | None) -> str:
    # Of `--as-of now` the next run would make another time, and so another job.
    time = f", with --as-of {as_of.isoformat()}" if as_of is not None else ""
    continues = f"the same command{time} continues"
    try:
        # Not what the sink remembers: it may have been stopped between a commit and taking note of it.
        state = sink.state(limit=_SECONDS_TO_TELL)
    except ScoresError:
        # The file is not there yet, or it is what the job was waiting for.
        return f"stopped; {continues}"
    return (
        f"stopped: {state.rows if state else 0:,} of {source.rows:,} candidates are in the table; {continues}"
    )


def _job_id(
    predictor: Predictor,
    repository: FeatureRepository,
    source: Source,
    options: ScoreOptions,
    ranking: Ranking | None,
) -> str:
    """A fingerprint of all that decides the table: weights, calibration, precision, feature definitions, timed
    candidates, options.
    """
    run = predictor.run
    files = [file.read_bytes() for file in (run.weights, run.calibration) if file.exists()]
    model = [hashlib.sha256(content).hexdigest() for content in files]
    facts = [run.id, model, source.rows, source.digest, CHUNK_ROWS, options.replace, options.online]
    facts += [list(options.carry), predictor.precision.name, predictor.precision.matmul]
    facts += [fingerprint(service_definitions(repository)), options.again]
    if ranking:
        facts += [ranking.expression.text, list(ranking.per), ranking.top_k]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
