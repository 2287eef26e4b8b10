"""Evaluates rows with three tasks and a chain product: CPU seconds and the memory it takes.

python benchmarks/evaluation.py [ROWS]     default 10 million; the target there: 60 s CPU, 1.5 GB, no intervals
"""

import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mtl_rank.config import parse_config
from mtl_rank.evaluation.columns import IDENTITY
from mtl_rank.evaluation.evaluate import finish, measured
from mtl_rank.evaluation.outcomes import Collector, Outcomes

PART = 1 << 17
CONFIG = parse_config(
    """
feature_service: benchmark
examples: none.parquet
split: {valid: 2026-01-01, test: 2026-01-02}
tasks: {ctr: {label: clicked}, cvr: {label: bought, given: ctr}, like: {label: liked}}
""",
    "benchmark",
)


def collected(rows: int, folder: Path) -> Outcomes:
    """Rows in the order of time as a predictor hands them on, forty per user and spread over a week."""
    import polars as pl

    rng = np.random.default_rng(0)
    collector = Collector(CONFIG, folder)
    for start in range(0, rows, PART):
        n = min(PART, rows - start)
        ctr, cvr, like = rng.beta(1, 9, n), rng.beta(2, 8, n), rng.beta(1, 50, n)
        clicked = rng.random(n) < ctr
        day = 86_400_000_000 * 7 * (start + np.arange(n)) // rows
        collector.add(
            labels={
                "ctr": clicked.astype(float),
                "cvr": np.where(clicked, rng.random(n) < cvr, np.nan),
                "like": (rng.random(n) < like).astype(float),
            },
            predictions={"ctr": ctr, "cvr": cvr, "like": like, "ctcvr": ctr * cvr},
            columns={
                "group": pl.Series(rng.integers(0, max(1, rows // 40), n)),
                "time": pl.Series(day).cast(pl.Datetime("us")),
                IDENTITY: pl.Series(rng.integers(0, 2**63, n, np.uint64)),
                "by cold user_id": pl.Series(rng.random(n) < 0.1),
                "by cold item_id": pl.Series(rng.random(n) < 0.02),
            },
            uncalibrated={},
            baselines={},
        )
    return finish(CONFIG, "user_id", collector, {})


def main() -> None:
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10_000_000
    with TemporaryDirectory() as folder:
        outcomes = collected(rows, Path(folder))
        start = time.process_time()
        result = measured(outcomes, "benchmark", draws=0, seed=7)
        seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{rows:,} rows, {len(result.tasks)} outputs: {seconds:.1f} s CPU, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
