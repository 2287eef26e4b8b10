"""torch-rechub's predict over rows in memory: `python -m score.loops.rechub ENCODED ROWS`."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import PredictDataset
from train.meter import peak_rss_mb
from train.rows import Rows

BATCH_ROWS = 4096


def main() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows, count = Rows.open(Path(sys.argv[1])), int(sys.argv[2])
    x = {name: np.array(values[:count]) for name, values in rows.columns().items()}
    features = [SparseFeature(name, vocab_size=size, embed_dim=16) for name, size in rows.sizes.items()]
    features += [DenseFeature(name) for name in x if name not in rows.sizes]
    model = MMOE(
        features,
        ["classification"] * 2,
        n_expert=4,
        expert_params={"dims": [256, 128]},
        tower_params_list=[{"dims": [64]}] * 2,
    )
    trainer = MTLTrainer(model, ["classification"] * 2, n_epoch=1)
    loader = DataLoader(PredictDataset(x), batch_size=BATCH_ROWS)
    wall, cpu = time.perf_counter(), time.process_time()
    predicted = trainer.predict(model, loader)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"rows": len(predicted), "wall": wall, "cpu": cpu, "peak_rss_mb": peak_rss_mb()}))


if __name__ == "__main__":
    main()
