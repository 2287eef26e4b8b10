"""The work of a job: retrieve -> encode -> predict -> rank -> commit, one chunk after another."""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from mtl_rank.data.encoder import EncodedRows
from mtl_rank.data.prepare import as_polars
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter
from mtl_rank.scoring.ledger import Chunk, Details
from mtl_rank.scoring.measures import (
    Doubles,
    Measures,
    count_cells,
    count_missing,
    stability_index,
    views_of,
)
from mtl_rank.scoring.pipeline import Clock, ahead, each
from mtl_rank.scoring.ranking import Ranking
from mtl_rank.scoring.sinks import Sink
from mtl_rank.scoring.sources import Piece, Source


def run_job(
    predictor: Predictor,
    repository: FeatureRepository,
    source: Source,
    ranking: Ranking | None,
    sink: Sink,
    reporter: Reporter,
    clock: Clock,
) -> int:
    """Predict and commit every chunk that is not in the table yet, then finish. Returns the candidates scored.

    sink: has claimed the job. clock: is told how long each stage was busy.
    """
    first = len(sink.committed)
    before = sum(chunk.rows for chunk in sink.committed.values())
    if before:
        reporter.say(f"continuing after {before:,} of {source.rows:,} rows")
    reporter.stage("score", source.rows)
    done = before
    stages = _Stages(predictor, repository, list(sink.schema.given), ranking, clock)
    # Each `ahead` is a thread: while a chunk is written the next is predicted, its next encoded, and so on.
    retrieved = ahead(clock.timed("retrieve", source.pieces(first)))
    with closing(ahead(stages.chunks(ahead(each(stages.encode, retrieved))))) as scored:
        for chunk, table, details in scored:
            with clock("write"):
                sink.commit(chunk, table, details)
            done += chunk.rows
            reporter.advance(done, clock.slowest())
    sink.finish(len(source.chunks), _finished(sink))
    return done - before


@dataclass(frozen=True)
class _Encoded:
    """A piece on its way. chunk, last: of the piece. kept: its columns that go to the scores."""

    chunk: Chunk
    last: bool
    kept: pa.Table
    rows: EncodedRows
    missing: Mapping[str, int]


@dataclass(frozen=True)
class _Stages:
    """What happens to the rows of a job. columns: those of the scores table."""

    predictor: Predictor
    repository: FeatureRepository
    columns: list[str]
    ranking: Ranking | None
    clock: Clock

    def encode(self, piece: Piece) -> _Encoded:
        with self.clock("encode"):
            frame = as_polars(piece.table)
            computed = {*self.predictor.outputs, *(self.ranking.columns if self.ranking else ())}
            kept = piece.table.select([name for name in self.columns if name not in computed])
            missing = count_missing(frame, views_of(self.repository))
            rows = self.predictor.encoder.encode(frame, with_labels=False)
            return _Encoded(piece.chunk, piece.last, kept, rows, missing)

    def chunks(
        self, pieces: Generator[_Encoded, None, None]
    ) -> Generator[tuple[Chunk, pa.Table, Details], None, None]:
        """The scores of whole chunks, with what the ledger shall keep of each."""
        tables: list[pa.Table] = []
        measured: list[Measures] = []
        with closing(pieces):
            for encoded in pieces:
                with self.clock("predict"):
                    found = self.predictor.predict_encoded(encoded.rows)
                    table = encoded.kept
                    for name, values in found.items():
                        table = table.append_column(name, pa.array(values))
                    tables.append(table)
                    measured.append(self._measures(encoded, found))
                if encoded.last:
                    with self.clock("rank"):
                        whole = pa.concat_tables(tables)
                        table = self.ranking.apply(whole) if self.ranking else whole
                    details = {"kept": table.num_rows, "measures": Measures.total(measured).as_dict()}
                    yield encoded.chunk, table, details
                    tables, measured = [], []

    def _measures(self, encoded: _Encoded, found: Mapping[str, Doubles]) -> Measures:
        config = self.predictor.config
        cells = {
            name: count_cells(found[name], kind == "binary")
            for name, kind in config.outputs().items()
            if name not in config.products()
        }
        return Measures(encoded.kept.num_rows, encoded.missing, cells)


def _finished(sink: Sink) -> Details:
    """What the ledger keeps of the job: its counts, and how far they are from those of the last finished job."""
    parts = sink.chunk_details()
    mine = Measures.total(Measures.from_dict(part["measures"]) for part in parts)
    others = (job for job in sink.jobs() if job.job_id != sink.job_id)
    before = next((job for job in others if "measures" in job.details), None)
    old = Measures.from_dict(before.details["measures"]).cells if before else {}
    return {
        **sink.details,
        "kept": sum(part["kept"] for part in parts),
        "missing": mine.missing_rates,
        "psi": {task: stability_index(old.get(task, {}), cells) for task, cells in mine.cells.items()},
        "compared_with": before.job_id if before else None,
        "measures": mine.as_dict(),
    }
