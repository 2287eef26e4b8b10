"""The work of a job: score what is not in the table yet, push it, commit it, one chunk after another."""

from contextlib import closing

from mtl_rank.errors import ScoresError
from mtl_rank.progress import Reporter
from mtl_rank.scoring.chunks import Engine
from mtl_rank.scoring.ledger import Details
from mtl_rank.scoring.measures import Measures, stability_index
from mtl_rank.scoring.pipeline import Clock
from mtl_rank.scoring.push import Push
from mtl_rank.scoring.sinks import Sink
from mtl_rank.scoring.sources import Source


def run_job(
    engine: Engine, source: Source, sink: Sink, push: Push | None, reporter: Reporter, clock: Clock
) -> int:
    """Score and commit every chunk that is not in the table yet, then finish. Returns the candidates scored.

    sink: has claimed the job. push: where chunks go besides. clock: is told how long each stage was busy.
    """
    first = len(sink.committed)
    before = sum(chunk.rows for chunk in sink.committed.values())
    if before:
        reporter.say(f"continuing after {before:,} of {source.rows:,} rows")
    reporter.stage("score", source.rows)
    done = before
    with closing(engine.score(source.chunks[first:], clock)) as scored:
        for chunk, table, details in scored:
            if push is not None:
                # Before it is committed: a chunk in the table is a chunk in the view.
                with clock("push"):
                    push.write(table, {"run_id": sink.run_id, "job_id": sink.job_id})
            with clock("write"):
                sink.commit(chunk, table, {**details, "push": push.view if push else None})
            done += chunk.rows
            reporter.advance(done, clock.slowest())
    sink.finish(len(source.chunks), _finished(sink))
    return done - before


def check_pushed(sink: Sink, push: str | None) -> None:
    """Raise ScoresError for a job whose chunks went elsewhere than `push`. sink: has claimed the job."""
    if sink.finished:
        state = sink.state()
        before = {state.details.get("push")} if state and push else {push}
    else:
        before = {part.get("push") for part in sink.chunk_details()}
    for other in before - {push}:
        begun = f"pushed to {other}" if other else "not pushed"
        now = "--replace the scores to push them all" if push else f"say --push {other} to continue"
        raise ScoresError(f"job {sink.job_id} was here before, and its scores were {begun}: {now}")


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
