"""The work of a job: retrieve -> encode -> predict -> rank -> commit, one chunk after another."""

from dataclasses import dataclass

import pyarrow as pa

from mtl_rank.data.prepare import as_polars
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter
from mtl_rank.scoring.ledger import Details
from mtl_rank.scoring.measures import Measures, stability_index, views_of
from mtl_rank.scoring.ranking import Ranking
from mtl_rank.scoring.sink import DuckDBSink
from mtl_rank.scoring.sources import Source


def run_job(
    predictor: Predictor,
    repository: FeatureRepository,
    source: Source,
    ranking: Ranking | None,
    sink: DuckDBSink,
    reporter: Reporter,
) -> int:
    """Predict and commit every chunk that is not in the table yet, then finish. Returns the candidates scored.

    sink: has claimed the job.
    """
    first = len(sink.committed)
    before = sum(chunk.rows for chunk in sink.committed.values())
    if before:
        reporter.say(f"continuing after {before:,} of {source.rows:,} rows")
    reporter.stage("score", source.rows)
    done = before
    scorer = _Scorer(predictor, repository, list(sink.schema.given), ranking)
    scored: list[pa.Table] = []
    measured: list[Measures] = []
    for piece in source.pieces(first):
        scores, measures = scorer.score(piece.table)
        scored.append(scores)
        measured.append(measures)
        done += piece.table.num_rows
        if piece.last:
            whole = pa.concat_tables(scored)
            table = ranking.apply(whole) if ranking else whole
            details = {"kept": table.num_rows, "measures": Measures.total(measured).as_dict()}
            sink.commit(piece.chunk, table, details)
            scored, measured = [], []
            reporter.advance(done)
    sink.finish(len(source.chunks), _finished(sink))
    return done - before


@dataclass(frozen=True)
class _Scorer:
    """Turns retrieved rows into scores. columns: those of the scores table."""

    predictor: Predictor
    repository: FeatureRepository
    columns: list[str]
    ranking: Ranking | None

    def score(self, table: pa.Table) -> tuple[pa.Table, Measures]:
        frame = as_polars(table)
        found = self.predictor.predict(frame)
        computed = {*found, *(self.ranking.columns if self.ranking else ())}
        scores = table.select([name for name in self.columns if name not in computed])
        for name, values in found.items():
            scores = scores.append_column(name, pa.array(values))
        tasks = self.predictor.config.tasks
        binary = {name: task.kind == "binary" for name, task in tasks.items()}
        return scores, Measures.of(frame, found, views_of(self.repository), binary)


def _finished(sink: DuckDBSink) -> Details:
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
