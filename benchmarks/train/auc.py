"""Does speed cost quality: our training against dense Adam in fp32, on the shop.

Usage: python -m train.auc PROJECT SEEDS. Prints validation AUCs per seed as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path

import lightning as L
import numpy as np
import torch

from mtl_rank.config import ProjectConfig, load_config
from mtl_rank.data.cache import Prepared, prepared
from mtl_rank.data.datamodule import OrderedBatches, ShuffledBatches, auto_batch_size
from mtl_rank.features.repository import open_repository
from mtl_rank.nn.network import RankingNetwork
from mtl_rank.nn.zoo import build_network
from mtl_rank.progress import Silent
from mtl_rank.training.fit import fit, prior_logits
from mtl_rank.training.losses import TaskLosses
from mtl_rank.training.module import L2_BATCH
from mtl_rank.training.optim import learning_rate_factor
from mtl_rank.training.validation import improves, validation_metrics
from mtl_rank.training.weighting import build_weighting

TASKS = ["ctr", "cvr"]


def main() -> None:
    project, seeds = Path(sys.argv[1]), int(sys.argv[2])
    config = load_config(project).with_tasks(TASKS)
    repository = open_repository(
        (project / config.feature_repo).resolve(), config.feature_service, config.context
    )
    data = prepared(config, project, repository, Silent())
    for seed in range(1, seeds + 1):
        seeded = config.model_copy(update={"fit": config.fit.model_copy(update={"seed": seed})})
        with tempfile.TemporaryDirectory() as run:
            ours = fit(seeded, data.encoder, data.train, data.valid, Path(run), Silent())
        reference = _dense_adam(seeded, data)
        for task in TASKS:
            name = f"valid/{task}/auc"
            found = {"task": task, "seed": seed, "ours": ours.valid[name], "dense_adam": reference[name]}
            print(json.dumps({**found, "precision": ours.precision}), flush=True)


def _dense_adam(config: ProjectConfig, data: Prepared) -> dict[str, float]:
    """The same network, batches, penalty, schedule and stopping; all weights, every row of the tables, by Adam."""
    options = config.fit
    L.seed_everything(options.seed, verbose=False)
    network = build_network(config.model, data.encoder.layout, prior_logits(data.encoder.targets))
    batch_size = auto_batch_size(data.train.rows)
    steps = -(-data.train.rows // batch_size)
    task_losses, weighting = TaskLosses(list(config.tasks.values())), build_weighting(config, steps)
    tables = list(network.embeddings.parameters())
    groups = [{"params": list(network.parameters())}, {"params": list(weighting.parameters()), "lr": 1e-2}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=options.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(
            step, steps, options.epochs, options.warmup_steps, options.schedule
        ),
    )
    l2 = options.embedding_l2 / max(batch_size, L2_BATCH)
    best: dict[str, float] = {}
    best_epoch = 0
    for epoch in range(options.epochs):
        network.train()
        for batch in ShuffledBatches(data.train, batch_size, options.seed, epoch):
            optimizer.zero_grad()
            weighting(task_losses(network(batch), batch.labels)).total.backward()
            for table in tables:
                table.grad = _dense(table, l2)
            optimizer.step()
            scheduler.step()
        valid = _validate(network, data)
        if improves(options.monitor, valid[options.monitor], best.get(options.monitor)):
            best, best_epoch = valid, epoch
        elif epoch - best_epoch >= options.patience:
            break
    return best


def _dense(table: torch.nn.Parameter, l2: float) -> torch.Tensor:
    """The gradient of every row; the penalty acts on the rows of the batch, as ours does."""
    assert table.grad is not None
    rows = table.grad._indices()[0].long().unique()
    gradient = table.grad.to_dense()
    gradient[rows] += l2 * table.detach()[rows]
    return gradient


@torch.no_grad()
def _validate(network: RankingNetwork, data: Prepared) -> dict[str, float]:
    network.eval()
    batches = list(OrderedBatches(data.valid, 16_384))
    logits = np.concatenate([network(batch).numpy().astype(np.float64) for batch in batches])
    labels = np.concatenate([batch.labels.numpy().astype(np.float64) for batch in batches])
    return validation_metrics(logits, labels, data.encoder.targets)


if __name__ == "__main__":
    main()
