"""Training speed against torch-rechub, DeepCTR-Torch and a bare torch loop; the pieces are in train/.

Prints one table. Usage: python benchmarks/train.py [--tiny] [--no-peers]
"""

import argparse
import os
import tempfile
from pathlib import Path

from train.report import report
from train.suite import Sizes, run_suite


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
