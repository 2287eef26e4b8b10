"""Utilisation and entropy of gates against their formulas."""

import numpy as np
import pytest
import torch

from mtl_rank.nn.gates import entropy, utilisation


def test_use_and_entropy_follow_their_formulas():
    gates = torch.softmax(
        torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0)) * 3, dim=2
    ).double()
    g = gates.numpy()
    np.testing.assert_allclose(utilisation(gates), g.mean(axis=0))
    np.testing.assert_allclose(entropy(gates), -(g * np.log(g)).sum(axis=2).mean(axis=0) / np.log(4))


@pytest.mark.parametrize(
    ("row", "expected"), [([0.25] * 4, 1.0), ([1.0, 0, 0, 0], 0.0), ([0.5, 0.5, 0, 0], 0.5), ([1.0], 1.0)]
)
def test_entropy_runs_from_one_expert_to_all_alike(row, expected):
    assert entropy(torch.tensor([[row], [row]])).tolist() == pytest.approx([expected])
