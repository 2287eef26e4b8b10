"""mtl_rank through its public API."""

import tempfile
from pathlib import Path

from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.encoder import FeatureEncoder
from mtl_rank.progress import Silent
from mtl_rank.training.fit import fit
from mtl_rank.training.precision import Precision, choose_precision
from train.workload import TASKS, config


def precision_of(name: str) -> Precision:
    """fp32 as `auto` takes it on a processor without bf16: in the faster of the two backends."""
    return Precision("fp32", choose_precision("auto", "cpu").matmul) if name == "fp32" else Precision("bf16")


def train(folder: Path, batch_size: int, precision: str) -> None:
    encoder = FeatureEncoder.load(folder / "encoder")
    rows, valid = (
        EncodedDataset.open(folder / split, encoder.layout, len(TASKS)) for split in ("train", "valid")
    )
    with tempfile.TemporaryDirectory() as run:
        options = config(batch_size, precision)
        fit(options, encoder, rows, valid, Path(run), Silent(), precision_of(precision))
