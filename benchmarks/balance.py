"""Every weighting and aggregator against single tasks and a tuned manual lambda, on KuaiRand and the simulated shop.

Prints the tables of docs/balance.md: test AUC / NE per output, mean and standard deviation of the seeds.
Usage: python benchmarks/balance.py [--data shop|kuairand] [--seeds 3] [--jobs 2] [--shop-rows 40000] [--work FOLDER]

Each finished training is a line of results.jsonl in the work folder: killed and started again, it goes on there.
Trainings run on one thread each, `--jobs` of them at a time.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

# Before torch: it says on how many threads a training runs.
from trainings import PLAIN, ROOT, Data, Job, Results, Row, kuairand_project, kuairand_source, shop_project

import mtl_rank as mr
from mtl_rank.config import parse_settings
from mtl_rank.progress import Silent
from mtl_rank.training.weighting import METHODS

SHOP_ROWS = 40_000
WITH_CONVEX = {"cagrad", "nashmtl"}
TUNED, ALONE = "manual, tuned", "alone"


@dataclass(frozen=True)
class Contender:
    """One row of the table. settings: what it is trained with. measured: its outputs, None = all."""

    name: str
    settings: Mapping[str, Any]
    measured: str | None = None


@dataclass(frozen=True)
class Training:
    """One line of the results."""

    data: Data
    contender: Contender
    seed: int
    common: Mapping[str, Any]

    @property
    def job(self) -> Job:
        settings = json.dumps({**self.common, **self.contender.settings}, sort_keys=True)
        name = (self.data.name, self.contender.name, self.contender.measured or "", str(self.seed))
        return Job((*name, settings), trained, (self,))


def trained(training: Training) -> Row:
    """AUC and NE of each output on the test window, and the seconds of an epoch."""
    data, contender = training.data, training.contender
    settings = {**PLAIN, **training.common, **contender.settings, "fit.seed": training.seed}
    run = mr.train(data.project, data.tasks, settings, Silent())
    test, info = run.metrics()["test"], run.info()
    measured, fit = test["tasks"], info["fit"]
    rows = {**info["rows"], "test": test["rows"]}
    row = {name: [measured[name]["auc"], measured[name]["ne"]] for name in data.outputs}
    shutil.rmtree(run.folder)
    return {
        "outputs": row,
        "rows": rows,
        "epochs": fit["epochs"],
        "seconds": fit["seconds"] / fit["epochs"],
    }


def contenders(data: Data, tuned: Mapping[str, float], convex: bool) -> Iterator[Contender]:
    for task in data.tasks:
        # As `mtlrank tune` has it: the same network with one lambda, stopped by its own loss.
        lambdas = {other: float(other == task) for other in data.tasks}
        settings = {"weighting": {"method": "manual", "lambdas": lambdas}, "fit.monitor": f"valid/{task}/ne"}
        yield Contender(ALONE, settings, task)
    yield Contender("manual, equal", {"weighting": {"method": "manual"}})
    yield Contender(TUNED, {"weighting": {"method": "manual", "lambdas": dict(tuned)}})
    for name in METHODS:
        if name != "manual" and (convex or name not in WITH_CONVEX):
            yield Contender(name, {"weighting": {"method": name}})


def tuned_lambdas(data: Data, trials: int, common: Mapping[str, Any], jobs: int) -> Row:
    """The best of a study on the validation window, equal priorities; its trials are shared by `jobs` processes."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        # One of them may end while nothing is finished yet: what counts is what all of them leave.
        wait([pool.submit(tuned, data, trials, common) for _ in range(jobs)])
    return {"lambdas": tuned(data, trials, common)}


def tuned(data: Data, trials: int, common: Mapping[str, Any]) -> dict[str, float]:
    found = mr.tune(data.project, data.tasks, trials=trials, settings=dict(common), reporter=Silent())
    return dict(found.best_point.lambdas)


def table(data: Data, options: argparse.Namespace, common: Mapping[str, Any], done: Results) -> None:
    name = (data.name, TUNED, f"{options.trials} trials", json.dumps(common, sort_keys=True))
    study = Job(name, tuned_lambdas, (data, options.trials, common, options.jobs))
    done.complete([study], 1)
    lambdas: Mapping[str, float] = done[study]["lambdas"]
    wanted = [
        Training(data, contender, seed, common)
        for contender in contenders(data, lambdas, options.convex)
        if not options.only_methods or contender.name.split(",")[0] in options.only_methods.split(",")
        for seed in range(1, options.seeds + 1)
    ]
    done.complete([training.job for training in wanted], options.jobs)
    rows: dict[str, dict[str, list[list[float]]]] = {}
    seconds: dict[str, list[float]] = {}
    size: dict[str, int] = {}
    for training in wanted:
        found, contender = done[training.job], training.contender
        size = found["rows"]
        seconds.setdefault(contender.name, []).append(found["seconds"])
        for output in data.outputs if contender.measured is None else [contender.measured]:
            rows.setdefault(contender.name, {}).setdefault(output, []).append(found["outputs"][output])
    shown = ", ".join(f"{task} {value:g}" for task, value in lambdas.items())
    print(f"\n### {data.name}\n")
    rows_of = ", ".join(f"{count:,} {window}" for window, count in size.items())
    print(f"Rows: {rows_of}. Test AUC / NE, mean and deviation of {options.seeds} seeds.")
    print(f"Tuned lambdas, of {options.trials} trials: {shown}.\n")
    print(f"| weighting | {' | '.join(data.outputs)} | s / epoch |")
    print("|---|" + "---|" * (len(data.outputs) + 1))
    for name, of_outputs in rows.items():
        cells = [_cell(of_outputs.get(output)) for output in data.outputs]
        print(f"| {name} | {' | '.join(cells)} | {np.mean(seconds[name]):.1f} |")
    print(flush=True)


def _cell(values: list[list[float]] | None) -> str:
    if values is None:
        return ""
    (auc, ne), (auc_sd, ne_sd) = np.mean(values, axis=0), np.std(values, axis=0)
    return f"{auc:.4f} ± {auc_sd:.4f} / {ne:.4f} ± {ne_sd:.4f}"


def projects(options: argparse.Namespace, work: Path) -> Iterator[Data]:
    if options.data != "shop" and (source := kuairand_source()) is not None:
        project = kuairand_project(work / "kuairand", source)
        yield Data("KuaiRand", project, ("ctr", "cvr", "like"), ("ctr", "cvr", "ctcvr", "like"))
    if options.data != "kuairand":
        project = shop_project(work / f"shop-{options.shop_rows}", options.shop_rows)
        yield Data(f"shop of {options.shop_rows:,}", project, ("ctr", "cvr"), ("ctr", "cvr", "ctcvr"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=["kuairand", "shop"], help="default: both")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--trials", type=int, default=16, help="of the study that tunes the manual lambdas")
    parser.add_argument("--shop-rows", type=int, default=SHOP_ROWS)
    parser.add_argument("--only-methods", help="comma-separated, such as alone,manual,dwa")
    parser.add_argument("--convex", action="store_true", help="also cagrad and nashmtl, which need the extra")
    parser.add_argument("--work", type=Path, default=ROOT / ".bench-balance", help="of projects and results")
    parser.add_argument("--set", action="append", default=[], help="settings, as in mtlrank train")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    done = Results(options.work / "results.jsonl")
    for data in projects(options, options.work):
        table(data, options, parse_settings(options.set), done)


if __name__ == "__main__":
    main()
