"""mtl_rank on a narrow network: reading many rows is the point, not multiplying matrices."""

import tempfile
from pathlib import Path

from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.encoder import FeatureEncoder
from mtl_rank.progress import Silent
from mtl_rank.training.fit import fit
from train.workload import TASKS, config


def train(folder: Path, batch_size: int, precision: str) -> None:
    encoder = FeatureEncoder.load(folder / "encoder")
    rows, valid = (
        EncodedDataset.open(folder / split, encoder.layout, len(TASKS)) for split in ("train", "valid")
    )
    narrow = config(batch_size, precision)
    model = narrow.model.model_copy(update={"expert_layers": (16, 8), "tower_layers": (4,)})
    with tempfile.TemporaryDirectory() as run:
        fit(narrow.model_copy(update={"model": model}), encoder, rows, valid, Path(run), Silent())
