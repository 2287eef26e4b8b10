"""Chunks scored by tasks of Ray, on the cores of this machine or on a cluster.

A task leaves its chunk as a parquet file in a folder that driver and workers share; the driver alone commits, in
order, through the ledger of the job. So whatever dies, a chunk is in the table once: Ray runs a lost task again, and
a driver that is started again finds the files of tasks that had ended.
"""

import json
import os
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtl_rank.durable import appearing
from mtl_rank.errors import ConfigError, MtlRankError, ScoresError
from mtl_rank.features.repository import open_repository
from mtl_rank.predict import Predictor, precision_of
from mtl_rank.runs import Run
from mtl_rank.scoring.chunks import LocalEngine, Scored
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.pipeline import Clock
from mtl_rank.scoring.ranking import Ranking
from mtl_rank.scoring.sources import Features, Source
from mtl_rank.training.precision import Precision

_NOTE = b"mtl_rank"
_OBJECT_STORE_BYTES = 128 * 1024**2
_AHEAD = 2


@dataclass(frozen=True)
class Cluster:
    """Where tasks run. address: of a cluster, None = this machine. workers: tasks at a time; None = one per core."""

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: at least 1")

    @property
    def tasks(self) -> int:
        return self.workers or os.cpu_count() or 1


@dataclass(frozen=True)
class Assignment:
    """All that a worker must know to score any chunk of a job: plain data, with paths that all can read.

    precision: the driver's, since a score must not depend on who computes it.
    """

    run: Path
    precision: Precision
    online: bool
    source: Source
    columns: tuple[str, ...]
    ranking: Ranking | None

    def engine(self) -> LocalEngine:
        run = Run(self.run)
        if precision_of(run).name != self.precision.name:
            raise ConfigError("a worker's processor has no bf16 instructions, the driver's has")
        predictor = Predictor.load(run, self.precision)
        config = predictor.config
        path = (run.project / config.feature_repo).resolve()
        repository = open_repository(path, config.feature_service, config.context)
        features = Features(repository, self.online)
        return LocalEngine(self.source, features, predictor, self.columns, self.ranking)


@dataclass(frozen=True)
class RayEngine:
    """Scores chunks in tasks of Ray. folder: shared by all, and kept until the job is finished."""

    assignment: Assignment
    cluster: Cluster
    folder: Path

    def score(self, chunks: Sequence[Chunk], clock: Clock) -> Generator[Scored, None, None]:
        """As `Engine.score`. Nothing of Ray is left running when this is closed."""
        with _connected(self.cluster) as ray:
            task = ray.remote(num_cpus=1, max_retries=-1)(_score_into)
            shared = ray.put(self.assignment)
            waiting: deque[tuple[Chunk, Any]] = deque()
            rest = iter(chunks)
            while True:
                # Not all at once: what is scored and not yet committed takes room.
                for chunk in rest:
                    waiting.append((chunk, task.remote(shared, chunk, self.folder)))
                    if len(waiting) >= _AHEAD * self.cluster.tasks:
                        break
                if not waiting:
                    return
                chunk, reference = waiting.popleft()
                with clock("wait for workers"):
                    busy = _result(ray, reference)
                for stage, seconds in busy.items():
                    clock.add(stage, seconds)
                path = _part(self.folder, chunk)
                yield _read(path, chunk)
                # Used means committed: the caller asks for the next chunk after that.
                path.unlink(missing_ok=True)


def parts_folder(target: Path, job_id: str) -> Path:
    """The folder for the parts of a job, beside its target."""
    return target.parent / f".{target.name}.{job_id}.parts"


def remove_parts(folder: Path) -> None:
    """Remove what a finished job left."""
    shutil.rmtree(folder, ignore_errors=True)


def check_ray() -> None:
    """Raise ConfigError, naming the extra, when Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ConfigError("--engine ray needs Ray: pip install 'mtl-rank[ray]'") from None


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    import ray

    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    if cluster.address is None:
        # A library does not report what it is used for.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"num_cpus": cluster.tasks, "object_store_memory": _OBJECT_STORE_BYTES}
        # A cluster of another program on this machine is not ours to join.
        options |= {"address": "local"}
    else:
        options = {"address": cluster.address, "log_to_driver": False}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = cluster.address or "this machine"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ScoresError(f"--engine ray: no connection to {where}: {reason}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _result(ray: Any, reference: Any) -> dict[str, float]:
    try:
        busy: dict[str, float] = ray.get(reference)
        return busy
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MtlRankError):
            raise error.cause from None
        raise


def _score_into(assignment: Assignment, chunk: Chunk, folder: Path) -> dict[str, float]:
    """What a task does: the chunk as a file, unless it is there. Returns the seconds each stage was busy."""
    path = _part(folder, chunk)
    clock = Clock()
    if path.exists():
        return clock.seconds
    engine = _engine(assignment, folder)
    [scored] = engine.score([chunk], clock)
    schema = scored.table.schema.with_metadata({_NOTE: json.dumps(scored.details).encode()})
    with appearing(path) as partial:
        pq.write_table(scored.table.cast(schema), partial, compression="zstd")
    return clock.seconds


_ENGINES: dict[Path, LocalEngine] = {}


def _engine(assignment: Assignment, folder: Path) -> LocalEngine:
    """Loaded once per worker and job."""
    if folder not in _ENGINES:
        _ENGINES.clear()
        _ENGINES[folder] = assignment.engine()
    return _ENGINES[folder]


def _part(folder: Path, chunk: Chunk) -> Path:
    return folder / f"chunk-{chunk.number:08d}.parquet"


def _read(path: Path, chunk: Chunk) -> Scored:
    table: pa.Table = pq.read_table(path)
    details = json.loads(table.schema.metadata[_NOTE])
    return Scored(chunk, table.replace_schema_metadata(), details)
