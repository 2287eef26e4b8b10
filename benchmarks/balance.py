"""Every weighting and aggregator against single tasks and a tuned manual lambda, on KuaiRand and the simulated shop.

Prints the tables of docs/balance.md: test AUC / NE per output, mean and standard deviation of the seeds.
Usage: python benchmarks/balance.py [--seeds 3] [--shop-rows 200000] [--trials 16] [--work FOLDER]

With --work the projects and one line per training (results.jsonl) stay there: started again, it goes on.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mtl_rank as mr
from mtl_rank.config import parse_settings
from mtl_rank.datasets.projects import create_project
from mtl_rank.datasets.shop import simulate_shop
from mtl_rank.progress import Silent
from mtl_rank.training.weighting import METHODS

ROOT = Path(__file__).resolve().parents[1]
WITH_CONVEX = {"cagrad", "nashmtl"}
TUNED, ALONE = "manual, tuned", "alone"


@dataclass(frozen=True)
class Data:
    """One project. outputs: what is measured; those that are no task are chain products."""

    name: str
    project: Path
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Contender:
    """One row of the table. settings: what it is trained with. measured: its outputs, None = all."""

    name: str
    settings: Mapping[str, Any]
    measured: str | None = None


class Results:
    """What was trained, a line each; what is there is not trained again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._found = {tuple(row["key"]): row for row in map(json.loads, lines)}

    def get(self, key: tuple[str, ...]) -> dict[str, Any] | None:
        return self._found.get(key)

    def add(self, key: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
        self._found[key] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **row}) + "\n")
        return row


def trained(
    data: Data, contender: Contender, seed: int, common: Mapping[str, Any], done: Results
) -> dict[str, Any]:
    """AUC and NE of each output on the test window, and the seconds of an epoch."""
    key = (data.name, contender.name, contender.measured or "", str(seed))
    if (row := done.get(key)) is not None:
        return row
    print(f"  {' '.join(key)}", flush=True)
    run = mr.train(data.project, data.tasks, {**common, **contender.settings, "fit.seed": seed}, Silent())
    measured, fit = run.metrics()["test"]["tasks"], run.info()["fit"]
    row = {name: [measured[name]["auc"], measured[name]["ne"]] for name in data.outputs}
    shutil.rmtree(run.folder)
    return done.add(key, {"outputs": row, "seconds": fit["seconds"] / fit["epochs"], "epochs": fit["epochs"]})


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


def tuned_lambdas(data: Data, trials: int, common: Mapping[str, Any], done: Results) -> dict[str, float]:
    """The best of a study on the validation window, equal priorities."""
    key = (data.name, TUNED, f"{trials} trials", "")
    if (row := done.get(key)) is None:
        print(f"  {' '.join(key)}", flush=True)
        found = mr.tune(data.project, data.tasks, trials=trials, settings=common, reporter=Silent())
        row = done.add(key, {"lambdas": dict(found.best_point.lambdas)})
    lambdas: dict[str, float] = row["lambdas"]
    return lambdas


def table(data: Data, options: argparse.Namespace, common: Mapping[str, Any], done: Results) -> None:
    lambdas = tuned_lambdas(data, options.trials, common, done)
    rows: dict[str, dict[str, list[list[float]]]] = {}
    seconds: dict[str, list[float]] = {}
    for contender in contenders(data, lambdas, options.convex):
        if options.only_methods and contender.name.split(",")[0] not in options.only_methods.split(","):
            continue
        for seed in range(1, options.seeds + 1):
            found = trained(data, contender, seed, common, done)
            seconds.setdefault(contender.name, []).append(found["seconds"])
            for output in data.outputs if contender.measured is None else [contender.measured]:
                rows.setdefault(contender.name, {}).setdefault(output, []).append(found["outputs"][output])
    shown = ", ".join(f"{task} {value:g}" for task, value in lambdas.items())
    print(f"\n### {data.name}: test AUC / NE, {options.seeds} seeds; tuned lambdas {shown}\n")
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
    source = Path(os.environ.get("MTLRANK_KUAIRAND", ROOT.parent / "shared" / "kuairand"))
    if options.only != "shop":
        if source.is_dir():
            project = work / "kuairand"
            if not (project / "mtlrank.yaml").exists():
                create_project(project, "kuairand", source, Silent())
            yield Data("KuaiRand", project, ("ctr", "cvr", "like"), ("ctr", "cvr", "ctcvr", "like"))
        else:
            print(f"KuaiRand is not at {source}: skipped (set MTLRANK_KUAIRAND)")
    if options.only != "kuairand":
        project = work / f"shop-{options.shop_rows}"
        if not (project / "mtlrank.yaml").exists():
            create_project(project, "shop", None, Silent())
            simulate_shop(project / "data", options.shop_rows, seed=7)
        yield Data(f"shop of {options.shop_rows:,}", project, ("ctr", "cvr"), ("ctr", "cvr", "ctcvr"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16, help="of the study that tunes the manual lambdas")
    parser.add_argument("--shop-rows", type=int, default=200_000)
    parser.add_argument("--only", choices=["kuairand", "shop"])
    parser.add_argument("--only-methods", help="comma-separated, such as alone,manual,dwa")
    parser.add_argument("--convex", action="store_true", help="also cagrad and nashmtl, which need the extra")
    parser.add_argument("--work", type=Path, help="where to keep projects and results; default: nowhere")
    parser.add_argument("--set", action="append", default=[], help="settings, as in mtlrank train")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        for data in projects(options, work):
            table(data, options, parse_settings(options.set), Results(work / "results.jsonl"))


if __name__ == "__main__":
    main()
