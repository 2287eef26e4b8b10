"""mtl_rank through its public API."""

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
    with tempfile.TemporaryDirectory() as run:
        fit(config(batch_size, precision), encoder, rows, valid, Path(run), Silent())
