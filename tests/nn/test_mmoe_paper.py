"""benchmarks/mmoe_paper.py at a tiny size: its tasks are as related as it says, its networks equally large."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from mmoe_paper import (  # noqa: E402
    MMOE,
    NOISE,
    RELATEDNESS,
    Result,
    Sizes,
    draw,
    main,
    make_world,
    network_of,
    run_pair,
    shared_bottom_like,
    table,
)

sys.path.remove(str(BENCHMARKS))
from mtl_rank.nn.summary import summarise  # noqa: E402

TINY = Sizes.tiny()


@pytest.mark.parametrize("p", [0.0, 0.3, *RELATEDNESS])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_cosine_of_the_weights_is_p(p, seed):
    w1, w2 = make_world(p, seed, Sizes()).weights.double()
    assert w1.norm().item() == pytest.approx(1, abs=1e-6)
    assert w2.norm().item() == pytest.approx(1, abs=1e-6)
    assert (w1 @ w2).item() == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_labels_are_alike_the_more_the_weights_are(seed):
    """The world of a seed differs in the angle only, so that gaps can be compared from p to p."""
    worlds = [make_world(p, seed, Sizes()) for p in RELATEDNESS]
    correlations = []
    for world in worlds:
        assert torch.equal(world.phases, worlds[0].phases)
        assert torch.equal(world.weights[0], worlds[0].weights[0])
        labels = draw(world, 20_000, torch.Generator().manual_seed(0)).labels
        correlations.append(np.corrcoef(labels.numpy().T)[0, 1])
    assert correlations == sorted(correlations)
    assert correlations[0] < 0.6
    assert correlations[-1] > 0.97


def test_labels_follow_the_formula():
    world = make_world(0.5, 1, TINY)
    batch = draw(world, 4_000, torch.Generator().manual_seed(0))
    x, w = batch.dense.double().numpy(), world.weights.double().numpy()
    rest = []
    for k in range(2):
        z = x @ w[k]
        waves = sum(
            np.sin(a * z + b) for a, b in zip(world.frequencies.tolist(), world.phases.tolist(), strict=True)
        )
        rest.append(batch.labels[:, k].numpy() - z - waves)
    assert np.std(rest) == pytest.approx(NOISE, rel=0.05)
    assert abs(np.mean(rest)) < 0.01
    assert abs(np.corrcoef(rest)[0, 1]) < 0.06


def test_the_networks_have_the_same_budget():
    sizes = Sizes()
    counts = [
        summarise(network_of(model, sizes, 0)).parameters for model in (shared_bottom_like(MMOE, sizes), MMOE)
    ]
    assert abs(counts[0] - counts[1]) / counts[1] < 0.005


def test_the_table_gives_the_paired_gap_and_its_standard_error():
    gaps = [0.1, 0.3, 0.2]
    results = [Result(0.5, i, 1.0 + gap, 1.0, 0.5, 0.4) for i, gap in enumerate(gaps)]
    row = table(results).splitlines()[-1]
    assert f"+0.2000 ± {0.1 / math.sqrt(3):.4f}" in row
    assert "3 of 3" in row


def test_one_seed_gives_one_result():
    assert run_pair(0.9, 1, TINY) == run_pair(0.9, 1, TINY)


def test_it_runs_as_a_whole(tmp_path, monkeypatch, capsys):
    chart = tmp_path / "chart.svg"
    monkeypatch.setattr(sys, "argv", ["mmoe_paper.py", "--tiny", "--seeds", "2", "--chart", str(chart)])
    pytest.importorskip("altair")
    main()
    printed = capsys.readouterr().out
    assert [line.split(" |")[0] for line in printed.splitlines()[-3:]] == ["| 0.5", "| 0.9", "| 1.0"]
    assert "</svg>" in chart.read_text(encoding="utf-8")
