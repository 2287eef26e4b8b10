"""DeepCTR-Torch: its MMOE and `fit`, with the penalties of its defaults turned off."""

from pathlib import Path

import numpy as np
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import MMOE

from train.rows import Rows


def train(folder: Path, batch_size: int, precision: str) -> None:
    del precision
    rows = Rows.open(folder)
    x, y = rows.columns(), np.array(rows.labels)
    features = [SparseFeat(name, size, embedding_dim=16) for name, size in rows.sizes.items()]
    features += [DenseFeat(name, 1) for name in x if name not in rows.sizes]
    model = MMOE(
        features,
        num_experts=4,
        expert_dnn_hidden_units=(256, 128),
        gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=(64,),
        l2_reg_linear=0,
        l2_reg_embedding=0,
    )
    model.compile("adam", ["binary_crossentropy"] * 2)
    model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0)
