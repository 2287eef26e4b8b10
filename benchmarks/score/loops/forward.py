"""The forward pass alone over encoded rows: `python -m score.loops.forward PROJECT ENCODED ROWS`."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from train.meter import peak_rss_mb
from train.workload import TASKS

from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.predict import Predictor
from mtl_rank.runs import find_run
from mtl_rank.training.precision import matmul_precision

PIECE_ROWS = 131_072


def main() -> None:
    run = find_run(Path(sys.argv[1]))
    predictor = Predictor.load(run)
    precision = predictor.precision
    stored = EncodedDataset.open(Path(sys.argv[2]) / "train", predictor.encoder.layout, len(TASKS)).arrays
    rows = min(PIECE_ROWS, len(stored.ids))
    piece = EncodedRows(
        np.array(stored.ids[:rows]), np.array(stored.dense[:rows]), (), np.empty((rows, 0), np.float32)
    )
    repeats = max(1, int(sys.argv[3]) // rows)
    with matmul_precision(precision), torch.inference_mode():
        predictor.logits(piece)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            predictor.logits(piece)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    document = {"rows": repeats * rows, "wall": wall, "cpu": cpu, "peak_rss_mb": peak_rss_mb()}
    print(json.dumps({**document, "precision": precision.name}))


if __name__ == "__main__":
    main()
