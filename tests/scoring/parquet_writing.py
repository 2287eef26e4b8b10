"""Jobs that write small scores in parquet, and readers of what they wrote."""

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.parquet_sink import ParquetSink
from mtl_rank.scoring.table import ScoresSchema

SCHEMA = ScoresSchema({"user id": "VARCHAR", "item_id": "BIGINT"}, ("ctr", "cvr"))
CHUNKS, ROWS = 3, 200
DAY = 86_400_000_000


def scores_of(job_id, number, days=2):
    """A chunk that depends on the job and its number alone; its rows lie on several days."""
    items = np.arange(number * ROWS, (number + 1) * ROWS)
    random = np.random.default_rng([number, *job_id.encode()])
    return pa.table(
        {
            "user id": [f"{job_id} {item}" for item in items],
            "item_id": items,
            "event_timestamp": pa.array((items % days) * DAY + items, pa.timestamp("us", "UTC")),
            "ctr": random.random(ROWS),
            "cvr": random.random(ROWS),
        }
    )


def sink_of(target, job_id="a", **options):
    options.setdefault("patience", Patience(job=0))
    return ParquetSink(target, SCHEMA, run_id="run", job_id=job_id, **options)


def write_job(target, job_id="a", chunks=CHUNKS, **options):
    """What a scoring process does. Returns the number of chunks it wrote itself."""
    written = 0
    with sink_of(target, job_id, **options) as sink:
        for number in range(chunks):
            if not sink.finished and number not in sink.committed:
                details = {"number": number}
                written += sink.commit(Chunk(number, number * ROWS, ROWS), scores_of(job_id, number), details)
        if not sink.finished:
            sink.finish(chunks, {"done": job_id})
    return written


def expected(*job_ids):
    return pl.concat([pl.from_arrow(scores_of(job_id, n)) for job_id in job_ids for n in range(CHUNKS)])


def read(target):
    """All scores, as a reader that knows nothing of jobs finds them."""
    path = str(target.path / "**" / "*.parquet") if target.is_folder else str(target.path)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.read_parquet(path).pl()


def assert_holds(target, *job_ids):
    found, wanted = read(target).select(scores_of("a", 0).column_names), expected(*job_ids)
    if target.is_folder or len(job_ids) > 1:
        found, wanted = (table.sort("user id", "item_id") for table in (found, wanted))
    assert found.equals(wanted)


def left_behind(target):
    return [path.name for path in target.path.parent.iterdir() if path != target.path]
