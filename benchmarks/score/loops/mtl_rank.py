"""One job, parquet to a DuckDB file, in this process: `python -m score.loops.mtl_rank PROJECT CANDIDATES`."""

import json
import sys
import tempfile
import time
from pathlib import Path

from train.meter import peak_rss_mb

# Imported before the clock starts, as the peers are.
from mtl_rank.workflow import score


def main() -> None:
    project, candidates = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=candidates.parent) as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        summary = score(project, candidates=str(candidates), to=Path(folder) / "scores.duckdb")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    document = {"rows": summary.written, "wall": wall, "cpu": cpu, "peak_rss_mb": peak_rss_mb()}
    print(json.dumps({**document, "profile": dict(summary.profile)}))


if __name__ == "__main__":
    main()
