"""Jobs of a few small chunks on one table of scores, and what the database says of them."""

import duckdb
import numpy as np
import pyarrow as pa

from mtl_rank.scoring.database import Patience
from mtl_rank.scoring.ledger import Chunk
from mtl_rank.scoring.sink import DuckDBSink, jobs
from mtl_rank.scoring.table import ScoresSchema

SCHEMA = ScoresSchema({"user_id": "VARCHAR", "item_id": "bigint"}, ("ctr", "cvr", "ctcvr"))
ROWS = 100


def scores_of(number, schema=SCHEMA, rows=ROWS):
    items = np.arange(number * ROWS, number * ROWS + rows)
    columns = {
        "VARCHAR": pa.array([f"user {item % 7}" for item in items], pa.string()),
        "BIGINT": pa.array(items),
        "TIMESTAMP WITH TIME ZONE": pa.array(items * 1000, pa.timestamp("us", "UTC")),
        "DOUBLE": pa.array(items / 1000),
    }
    return pa.table({name: columns[kind] for name, kind in schema.given.items()})


def chunk_of(number):
    return Chunk(number, number * ROWS, ROWS)


def sink_of(target, job_id="job", schema=SCHEMA, **options):
    options.setdefault("patience", Patience(file=0.2, job=0))
    return DuckDBSink(target, schema, run_id="run", job_id=job_id, **options)


def write(target, job_id="job", chunks=2, **options):
    with sink_of(target, job_id, **options) as sink:
        for number in range(chunks):
            if not sink.finished and number not in sink.committed:
                sink.commit(chunk_of(number), scores_of(number, options.get("schema", SCHEMA)))
        sink.finish(chunks)


def query(target, sql, *values):
    with duckdb.connect(str(target.path)) as con:
        return con.execute(sql, list(values)).fetchall()


def states(target):
    return {job.job_id: job.state for job in jobs(target)}
