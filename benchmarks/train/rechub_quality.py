"""One of torch-rechub's models on exported rows: `python -m train.rechub_quality SPEC MODEL SEED OUT`.

Its layers, trainer and Adam with its defaults; widths, dropout, batch size and early stopping as mtl_rank's defaults
have them. Writes the predictions for the test rows and prints what the training was as JSON.
"""

import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models.multi_task import AITM, MMOE, PLE, SharedBottom
from torch_rechub.trainers import MTLTrainer

BATCH, EPOCHS, PATIENCE, DIM = 512, 15, 2, 16
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


class Rows:
    """The rows of one window; iterating gives batches, in another order each time if `shuffled`."""

    def __init__(self, spec: dict, folder: Path, window: str, shuffled: bool = False) -> None:
        def load(name: str) -> np.ndarray:
            return np.load(folder / f"{window}-{name}.npy")

        ids, dense = load("ids"), load("dense")
        self.x = {
            name: torch.from_numpy(ids[:, i] - offset) for i, (name, offset, _) in enumerate(spec["ids"])
        }
        for i, (offset, _, _) in enumerate(spec["sequences"]):
            self.x[f"sequence_{i}"] = torch.from_numpy(load(f"sequence-{i}") - offset)
        for i in range(spec["dense"]):
            self.x[f"number_{i}"] = torch.from_numpy(np.ascontiguousarray(dense[:, i]))
        # Not defined means that the step before did not happen: on every row, the label of the product.
        self.y = torch.from_numpy(np.nan_to_num(load("labels"), nan=0.0))
        self._shuffled = shuffled

    def __len__(self) -> int:
        return -(-len(self.y) // BATCH)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self.y)) if self._shuffled else torch.arange(len(self.y))
        for index in order.split(BATCH):
            # A batch norm cannot take a single row.
            if len(index) > 1 or not self._shuffled:
                yield {name: values[index] for name, values in self.x.items()}, self.y[index]


def build(name: str, spec: dict) -> torch.nn.Module:
    features = [SparseFeature(column, size, embed_dim=DIM) for column, _, size in spec["ids"]]
    features += [
        SequenceFeature(
            f"sequence_{i}", size, embed_dim=DIM, pooling="mean", shared_with=shares, padding_idx=0
        )
        for i, (_, size, shares) in enumerate(spec["sequences"])
    ]
    features += [DenseFeature(f"number_{i}") for i in range(spec["dense"])]
    kinds = ["classification"] * spec["tasks"]
    layers = {"dims": [64, 32], "dropout": 0.2}
    towers = [{"dims": [16], "dropout": 0.2}] * spec["tasks"]
    if name == "MMOE":
        return MMOE(features, kinds, 4, layers, towers)
    if name == "PLE":
        return PLE(features, kinds, 1, 2, 4, layers, towers)
    if name == "SharedBottom":
        return SharedBottom(features, kinds, layers, towers)
    return AITM(features, spec["tasks"], layers, towers)


@torch.no_grad()
def predict(model: torch.nn.Module, rows: Rows) -> torch.Tensor:
    model.eval()
    return torch.cat([model(x) for x, _ in rows])


def main() -> None:
    spec_path, name, seed, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)
    spec = json.loads(spec_path.read_text(encoding="utf-8"))
    train, valid, test = (Rows(spec, spec_path.parent, w, w == "train") for w in ("train", "valid", "test"))
    model = build(name, spec)
    trainer = MTLTrainer(model, ["classification"] * spec["tasks"])
    best, best_epoch, weights, epochs = float("inf"), 0, model.state_dict(), 0
    start = time.perf_counter()
    for epoch in range(EPOCHS):
        trainer.train_one_epoch(train)
        epochs = epoch + 1
        loss = float(torch.nn.functional.binary_cross_entropy(predict(model, valid), valid.y))
        if loss < best:
            best, best_epoch, weights = loss, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= PATIENCE:
            break
    seconds = time.perf_counter() - start
    model.load_state_dict(weights)
    np.save(out, predict(model, test).numpy())
    tables = sum(p.numel() for key, p in model.named_parameters() if "embed_dict" in key)
    found = {
        "parameters": sum(p.numel() for p in model.parameters()) - tables,
        "table_parameters": tables,
        "rows_per_second": epochs * len(train.y) / seconds,
        "seconds": seconds,
        "epochs": epochs,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
