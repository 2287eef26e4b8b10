"""What benchmarks of quality share: their projects, one training as a row of numbers, and the file that keeps rows.

A row is written when it is there: a benchmark that was stopped goes on with the next one. Each training runs on one
thread, several may run at a time.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Read when torch and Polars are imported, here and in the processes of `Results.complete`.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1"))

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ("auc", "ne", "calibration")
# Intervals and simpler models would be measured anew in every training.
PLAIN = {"evaluation.draws": 0, "evaluation.baselines": []}

Row = dict[str, Any]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """One project. outputs: what is measured, tasks and chain products. settings: of every training."""

    name: str
    project: Path
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One row to be made: `work(*arguments)`, a function of a module, for it may run in another process."""

    key: Key
    work: Callable[..., Row]
    arguments: tuple[Any, ...]


class Results:
    """What was measured, a line each, written by one process; what is there is not measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            # The line that a killed process did not finish.
            path.write_text(whole, encoding="utf-8")
        self._found = {tuple(row["key"]): row for row in map(json.loads, whole.splitlines())}

    def __getitem__(self, job: Job) -> Row:
        return self._found[job.key]

    def complete(self, jobs: Sequence[Job], workers: int) -> None:
        """Do the jobs whose rows are missing, so many at a time in processes of their own."""
        missing = [job for job in jobs if job.key not in self._found]
        print(f"{len(jobs) - len(missing)} of {len(jobs)} rows are there already", flush=True)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            running = {pool.submit(job.work, *job.arguments): job for job in missing}
            for count, done in enumerate(as_completed(running), start=1):
                job = running[done]
                self._add(job.key, done.result())
                print(f"  {count} of {len(missing)}: {' '.join(job.key)}", flush=True)

    def _add(self, key: Key, row: Row) -> None:
        self._found[key] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **row}) + "\n")


def training_job(data: Data, name: str, settings: Mapping[str, Any], seed: int) -> Job:
    """A training and its numbers. The key holds the settings: another setting is another row."""
    chosen = {**PLAIN, **data.settings, **settings, "fit.seed": seed}
    key = (data.name, name, json.dumps(chosen, sort_keys=True))
    return Job(key, trained, (data, chosen))


def trained(data: Data, settings: Mapping[str, Any]) -> Row:
    """Train, and keep what was measured on the test window.

    outputs: AUC, NE and calibration of each output; uncalibrated: the same before calibration, where there is one.
    rows_per_second: of training rows, validation included.
    """
    import mtl_rank as mr
    from mtl_rank.progress import Silent

    run = mr.train(data.project, data.tasks, settings, Silent())
    measured, fit = run.metrics()["test"]["tasks"], run.info()["fit"]
    shutil.rmtree(run.folder)
    before = {name: measured[name].get("uncalibrated") for name in data.outputs}
    return {
        "outputs": {name: {key: measured[name][key] for key in NUMBERS} for name in data.outputs},
        "uncalibrated": {name: numbers for name, numbers in before.items() if numbers},
        "valid_ne": fit["valid"]["valid/ne"],
        "parameters": fit["parameters"],
        "table_parameters": fit["embedding_parameters"],
        "rows_per_second": fit["rows_per_second"],
        "seconds": fit["seconds"],
        "epochs": fit["epochs"],
    }


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and standard deviation of the seeds."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def kuairand_source() -> Path | None:
    """The folder of the published files; None, with a line, where it is not."""
    source = Path(os.environ.get("MTLRANK_KUAIRAND", ROOT.parent / "shared" / "kuairand"))
    if source.is_dir():
        return source
    print(f"KuaiRand is not at {source}: skipped (set MTLRANK_KUAIRAND)")
    return None


def kuairand_project(project: Path, source: Path) -> Path:
    """The KuaiRand project in a folder, made where it is not there yet."""
    from mtl_rank.datasets.projects import create_project
    from mtl_rank.progress import Silent

    if not (project / "mtlrank.yaml").exists():
        create_project(project, "kuairand", source, Silent())
    return project


def shop_project(project: Path, rows: int) -> Path:
    """A simulated shop of so many impressions in a folder, made where it is not there yet."""
    from mtl_rank.datasets.projects import create_project
    from mtl_rank.datasets.shop import simulate_shop
    from mtl_rank.progress import Silent

    if not (project / "mtlrank.yaml").exists():
        create_project(project, "shop", None, Silent())
        simulate_shop(project / "data", rows, seed=7)
    return project


def click_data(options: argparse.Namespace) -> Iterator[Data]:
    """KuaiRand (click, long view) and the shop (click, purchase): ctr, and cvr given ctr."""
    common: dict[str, Any] = {"fit.epochs": 1} if options.tiny else {}
    tasks, outputs = ("ctr", "cvr"), ("ctr", "cvr", "ctcvr")
    if options.data != "shop" and (source := kuairand_source()) is not None:
        project = kuairand_project(options.work / "kuairand", source)
        some = f"SELECT * FROM '{project}/data/impressions.parquet' WHERE user_id % 16 = 0"
        fewer = {"examples": some} if options.tiny else {}
        yield Data("KuaiRand", project, tasks, outputs, {**common, **fewer})
    if options.data != "kuairand":
        project = shop_project(options.work / f"shop-{options.shop_rows}", options.shop_rows)
        yield Data(f"shop of {options.shop_rows:,}", project, tasks, outputs, common)


def arguments(description: str | None, work: Path) -> argparse.ArgumentParser:
    """The options of a benchmark of trainings. work: the usual folder."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="prove in minutes that everything runs")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--data", choices=["kuairand", "shop"], help="default: both")
    parser.add_argument("--shop-rows", type=int)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--work", type=Path, default=work, help="where projects and results stay")
    return parser


def parsed(parser: argparse.ArgumentParser, seeds: int, shop_rows: int = 200_000) -> argparse.Namespace:
    """The options; seeds and rows as given or by --tiny. Makes the work folder."""
    options = parser.parse_args()
    options.seeds = options.seeds or (1 if options.tiny else seeds)
    options.shop_rows = options.shop_rows or (6_000 if options.tiny else shop_rows)
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    return options
