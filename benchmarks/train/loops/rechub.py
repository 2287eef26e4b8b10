"""torch-rechub: its MMOE, trainer and loader, with the weight decay of its defaults turned off."""

from pathlib import Path

import numpy as np
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator

from train.rows import Rows


def train(folder: Path, batch_size: int, precision: str) -> None:
    del precision
    rows = Rows.open(folder)
    x, y = rows.columns(), np.array(rows.labels)
    features = [SparseFeature(name, vocab_size=size, embed_dim=16) for name, size in rows.sizes.items()]
    features += [DenseFeature(name) for name in x if name not in rows.sizes]
    model = MMOE(
        features,
        ["classification"] * 2,
        n_expert=4,
        expert_params={"dims": [256, 128]},
        tower_params_list=[{"dims": [64]}] * 2,
    )
    trainer = MTLTrainer(model, ["classification"] * 2, optimizer_params={"lr": 1e-3}, n_epoch=1)
    few = ({name: values[:4096] for name, values in x.items()}, y[:4096])
    loader, *_ = DataGenerator(x, y).generate_dataloader(*few, *few, batch_size=batch_size)
    trainer.train_one_epoch(loader)
