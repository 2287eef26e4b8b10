"""Batch scoring, parquet candidates to a DuckDB file, against torch-rechub and the forward pass; see score/.

Prints one table. Usage: python benchmarks/score.py [--tiny] [--no-peers]
"""

import argparse
import os
import tempfile
from pathlib import Path

from score.report import report
from score.suite import Sizes, run_suite


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="prove in minutes that everything runs")
    parser.add_argument("--no-peers", action="store_true", help="without the environment of the peers")
    options = parser.parse_args()
    sizes = Sizes.tiny() if options.tiny else Sizes()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        results = run_suite(Path(folder), sizes, with_peers=not options.no_peers)
    print(report(results, sizes, load))


if __name__ == "__main__":
    main()
