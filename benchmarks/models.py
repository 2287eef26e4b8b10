"""Every model of the zoo on KuaiRand (click, long view) and the simulated shop (click, purchase).

Prints the tables of docs/models.md, one per data set: parameters beside the tables, training rows per second on one
thread, NE of the validation window, test AUC and NE per output, mean and standard deviation of the seeds; with them
torch-rechub's models and gradient-boosted trees on the same encoded rows.
Usage: python benchmarks/models.py [--tiny] [--seeds 3] [--data shop|kuairand] [--models mmoe,ple] [--jobs 2]

Each finished training is a line of results.jsonl in the work folder: killed and started again, it goes on there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rivals import RECHUB, TREES, exported, rechub_job, trees_job
from train.processes import peers_python
from trainings import ROOT, Data, Job, Results, Row, arguments, click_data, parsed, spread, training_job

BEST = "preset best"


def contenders(data: Data, options: argparse.Namespace, peers: Path | None) -> dict[str, list[Job]]:
    """The rows of the table, a job per seed."""
    from mtl_rank.config import preset
    from mtl_rank.nn.zoo import ZOO

    seeds = range(1, options.seeds + 1)
    settings = {**{name: {"model.name": name} for name in ZOO}, BEST: preset("best")}
    found = {
        name: [training_job(data, name, of_name, seed) for seed in seeds]
        for name, of_name in settings.items()
    }
    found[TREES] = [trees_job(data, seed) for seed in seeds]
    if peers is not None:
        folder = options.work / "encoded" / f"{data.project.name}{'-tiny' if options.tiny else ''}"
        exported(data, folder)
        for model in RECHUB:
            jobs = [rechub_job(data, model, seed, folder, peers) for seed in seeds]
            found[f"torch-rechub {model}"] = jobs
    wanted = options.models.split(",") if options.models else found
    return {name: jobs for name, jobs in found.items() if name in wanted}


def table(data: Data, rows: dict[str, Sequence[Row]], seeds: int) -> str:
    """Markdown."""
    lines = [
        f"\n### {data.name}, {seeds} seeds: test AUC / NE\n",
        f"| model | parameters | rows/s | validation NE | {' | '.join(data.outputs)} |",
        "|---|---|---|---|" + "---|" * len(data.outputs),
    ]
    for name, found in rows.items():
        cells = [
            " / ".join(spread([row["outputs"][output][key] for row in found]) for key in ("auc", "ne"))
            for output in data.outputs
        ]
        speed = [row["rows_per_second"] for row in found if "rows_per_second" in row]
        valid = [row["valid_ne"] for row in found if "valid_ne" in row]
        facts = [
            f"{found[0]['parameters']:,}" if "parameters" in found[0] else "",
            f"{np.mean(speed):,.0f}" if speed else "",
            spread(valid) if valid else "",
        ]
        lines.append(f"| {name} | {' | '.join([*facts, *cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, ROOT / ".bench-models")
    parser.add_argument("--models", help="comma-separated rows of the table; default: all")
    parser.add_argument("--no-peers", action="store_true", help="without the environment of the peers")
    options = parsed(parser, seeds=3)
    peers = None if options.no_peers else peers_python()
    results = Results(options.work / "results.jsonl")
    for data in click_data(options):
        rows = contenders(data, options, peers)
        results.complete([job for jobs in rows.values() for job in jobs], options.jobs)
        print(
            table(data, {name: [results[job] for job in jobs] for name, jobs in rows.items()}, options.seeds)
        )
        seconds = sum(results[job]["seconds"] for jobs in rows.values() for job in jobs)
        print(f"\nSeconds of training, one thread each: {seconds:,.0f}", flush=True)


if __name__ == "__main__":
    main()
