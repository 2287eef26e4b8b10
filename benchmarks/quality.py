"""Quality with default settings: KuaiRand (mean of seeds, live against frozen counts) and the simulated shop.

Prints the tables of docs/quality.md.
Usage: python benchmarks/quality.py [--seeds 3] [--shop-rows 500000] [--preset best]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rivals import TREES
from trainings import kuairand_project, kuairand_source, shop_project, spread

import mtl_rank as mr
from mtl_rank.config import parse_settings, preset
from mtl_rank.progress import Silent
from mtl_rank.runs import Run

KUAIRAND_TASKS = ["ctr", "cvr", "like"]
MEASURED = {"evaluation.draws": 0, "evaluation.baselines": ["trees"]}
SERVICES = ["ranking_frozen_v1", "ranking_mixed_v1", "ranking_live_v1"]


class Say(Silent):
    """Keeps the long wait visible: one line per stage."""

    def stage(self, name: str, total: int | None) -> None:
        print(f"  {name}", flush=True)


def kuairand(source: Path, seeds: int, settings: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = kuairand_project(Path(folder) / "kuairand", source)
        for service in SERVICES:
            runs = []
            for seed in range(1, seeds + 1):
                print(f"kuairand {service} seed {seed}", flush=True)
                chosen = {**settings, "feature_service": service, "fit.seed": seed, **MEASURED}
                runs.append(mr.train(project, KUAIRAND_TASKS, chosen, Say()))
            print(f"\n### {service}\n\nValidation: {_validation(project, runs)}\n")
            print("| output | test AUC | GAUC by user | NE | calibration | AUC, NE of the trees |")
            print("|---|---|---|---|---|---|")
            for name in [*KUAIRAND_TASKS, "ctcvr"]:
                print(_row(name, [run.metrics() for run in runs]), flush=True)


def _row(name: str, metrics: list[dict[str, Any]]) -> str:
    """Of one output: the run's numbers and those of the trees on the same rows. metrics: of each seed's run."""
    own = [one["test"]["tasks"][name] for one in metrics]
    trees = [one["baselines"]["test"][TREES][name] for one in metrics]
    cells = [spread([one[key] for one in own]) for key in ("auc", "gauc", "ne", "calibration")]
    beside = ", ".join(spread([one[key] for one in trees]) for key in ("auc", "ne"))
    return f"| {name} | {' | '.join(cells)} | {beside} |"


def _validation(project: Path, runs: list[Run]) -> str:
    """What a service is chosen by: never the test days."""
    ne = [run.metrics()["valid"]["valid/ne"] for run in runs]
    measured = [{t.name: t for t in mr.evaluate(project, run.id, split="valid").tasks} for run in runs]
    parts = [f"mean NE {np.mean(ne):.4f} ± {np.std(ne):.4f}"]
    for name in (*KUAIRAND_TASKS, "ctcvr"):
        auc = np.mean([tasks[name].auc for tasks in measured])
        gauc = np.mean([tasks[name].gauc for tasks in measured])
        parts.append(f"{name} AUC {auc:.4f} GAUC {gauc:.4f}")
    return ", ".join(parts)


def shop(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = shop_project(Path(folder) / "shop", rows)
        run = mr.train(project, ["ctr", "cvr"], None, Say())
        print(f"\n### Shop, {rows:,} impressions, seed 7\n")
        print("| output | test AUC | attainable | share of the way from 0.5 | NE | calibration |")
        print("|---|---|---|---|---|---|")
        for name, n in run.metrics()["test"]["tasks"].items():
            share = (n["auc"] - 0.5) / (n["attainable_auc"] - 0.5)
            print(
                f"| {name} | {n['auc']:.4f} | {n['attainable_auc']:.4f} | {share:.1%} "
                f"| {n['ne']:.4f} | {n['calibration']:.3f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shop-rows", type=int, default=500_000)
    parser.add_argument("--only", choices=["kuairand", "shop"])
    parser.add_argument(
        "--set", action="append", default=[], help="settings for KuaiRand, as in mtlrank train"
    )
    parser.add_argument("--preset", help="settings for KuaiRand by name, as in mtlrank train")
    options = parser.parse_args()
    if options.only != "shop" and (source := kuairand_source()) is not None:
        kuairand(
            source,
            options.seeds,
            {**(preset(options.preset) if options.preset else {}), **parse_settings(options.set)},
        )
    if options.only != "kuairand":
        shop(options.shop_rows)


if __name__ == "__main__":
    main()
