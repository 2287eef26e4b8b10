"""The lambdas of every weighting after three steps: python lambdas_of_a_process.py FOLDER RANK WORLD

Of `WORLD` processes this one sees every `WORLD`-th row. Leaves them in FOLDER/WORLD-RANK.json.
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import distributed

sys.path.insert(0, str(Path(__file__).parents[1] / "nn"))
from random_inputs import LAYOUT, random_batch, randomise, rows_of

from mtl_rank.config import Model, ProjectConfig, Task
from mtl_rank.nn.zoo import build_network
from mtl_rank.training.distributed import with_global_value
from mtl_rank.training.gradients import SharedGradients
from mtl_rank.training.losses import TaskLosses
from mtl_rank.training.weighting import METHODS, build_weighting
from mtl_rank.training.weighting.aggregation import AGGREGATORS

TASKS = [Task(label="a"), Task(label="b", mean_over="batch")]
INSTALLED = sorted(
    name for name in METHODS if name not in AGGREGATORS or all(map(find_spec, AGGREGATORS[name].needs))
)


def network_of(name):
    model = Model(
        name=name,
        bottom_layers=(6,),
        expert_layers=(6,),
        experts=2,
        tower_layers=(3,),
        dropout=0.0,
        fields={"embeddings": "independent", "dim": 4},
    )
    return randomise(build_network(model, LAYOUT, torch.zeros(2)))


def config_with(method):
    return ProjectConfig.model_validate(
        {
            "feature_service": "s",
            "examples": "e",
            "split": {"valid": "2026-03-01", "test": "2026-04-01"},
            "tasks": {"a": {"label": "a"}, "b": {"label": "b"}},
            "weighting": {"method": method},
        }
    )


def lambdas_of(rank, world):
    found = {}
    for name in INSTALLED:
        weighting = build_weighting(config_with(name), 2)
        network = network_of("mmoe")
        watched = SharedGradients(network, "embeddings")
        # What dropout has drawn differs between the processes.
        torch.manual_seed(rank)
        for step in range(3):
            batch = random_batch(31, seed=step)
            batch.labels[torch.arange(31) % 3 == 0, 1] = float("nan")
            part = rows_of(batch, torch.arange(rank, 31, world))
            losses = with_global_value(TaskLosses(TASKS)(network(part), part.labels))
            gramian = watched.gramian(losses) if weighting.needs_gramian else None
            lambdas = weighting(losses, gramian).lambdas
        found[name] = lambdas.tolist()
    return found


def main():
    folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    (Path(folder) / f"{world}-{rank}.json").write_text(json.dumps(lambdas_of(rank, world)))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
