"""Everything that is measured, in alternation: one round measures every loop once, each in a fresh process."""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train import processes, workload
from train.processes import say

from score import projects

Measured = dict[str, Any]

END_TO_END, JOINED = "mtl_rank, parquet to DuckDB", "mtl_rank with the join of three views"
FORWARD, RECHUB = "forward pass alone, rows encoded in memory", "torch-rechub 0.9 predict, rows in memory"


@dataclass(frozen=True)
class Sizes:
    """rows: candidates of the jobs, the smallest first. main: of them, those that rounds compare.

    peer_rows: rows that torch-rechub predicts, enough of them for a steady rate.
    """

    rows: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    main: int = 1_000_000
    peer_rows: int = 300_000
    rounds: int = 3

    @staticmethod
    def tiny() -> "Sizes":
        """Proves in minutes that everything runs; its numbers mean nothing."""
        return Sizes((5_000, 20_000), 20_000, 8_192, 1)


@dataclass
class Results:
    """rounds: by loop, one measurement per round. by_rows: by (loop, rows), jobs of every size, once each."""

    precision: str = ""
    rounds: dict[str, list[Measured]] = field(default_factory=dict)
    by_rows: dict[tuple[str, int], Measured] = field(default_factory=dict)

    def per_cpu_second(self, loop: str) -> float:
        """Rows per CPU-second: the median of the rounds."""
        return statistics.median(one["rows"] / one["cpu"] for one in self.rounds[loop])


def run_suite(folder: Path, sizes: Sizes, with_peers: bool) -> Results:
    """Measure everything. folder: an empty place for the generated data, 2 GB at full size."""
    python = processes.peers_python() if with_peers else None
    results = Results(projects.precision_here().name)
    for joined in (False, True):
        say(f"project {_name(joined)}")
        projects.make_project(folder / _name(joined), joined)
        for rows in sizes.rows:
            projects.write_candidates(_candidates(folder, joined, rows), rows, joined)
    encoded = folder / "encoded"
    workload.prepare(encoded, sizes.peer_rows)
    for number in range(sizes.rounds):
        say(f"round {number + 1}/{sizes.rounds}")
        found = {
            END_TO_END: _score(folder, False, sizes.main),
            FORWARD: processes.measure("score.loops.forward", folder / _name(False), encoded, sizes.main),
            JOINED: _score(folder, True, sizes.main),
        }
        if python is not None:
            found[RECHUB] = processes.measure(
                "score.loops.rechub", encoded, sizes.peer_rows, threads=1, python=python
            )
        for loop, one in found.items():
            say(f"  {loop}: {one['rows'] / one['cpu']:,.0f} rows per CPU-second")
            results.rounds.setdefault(loop, []).append(one)
    for joined in (False, True):
        for rows in sizes.rows:
            loop = JOINED if joined else END_TO_END
            results.by_rows[loop, rows] = _score(folder, joined, rows)
            say(f"  {loop}, {rows:,} rows: {results.by_rows[loop, rows]}")
    return results


def _score(folder: Path, joined: bool, rows: int) -> Measured:
    return processes.measure(
        "score.loops.mtl_rank", folder / _name(joined), _candidates(folder, joined, rows), threads=1
    )


def _name(joined: bool) -> str:
    return "joined" if joined else "rows_alone"


def _candidates(folder: Path, joined: bool, rows: int) -> Path:
    return folder / f"{_name(joined)}-{rows}.parquet"
