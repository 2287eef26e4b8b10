"""Log-normal labels: the prediction is their mean, and with a binary parent that of a zero-inflated label."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_task import config_of, encoded, table_of

from mtl_rank.config import Task
from mtl_rank.data.datamodule import to_batch
from mtl_rank.data.encoded import take
from mtl_rank.data.labels import Target, decode_outputs
from mtl_rank.nn.zoo import build_network
from mtl_rank.progress import Silent
from mtl_rank.training.fit import fit
from mtl_rank.training.losses import TaskLosses

NAN = float("nan")
SPENT = Task(label="spent", kind="regression", transform="log1p", loss="lognormal")
STD = 1.6
TARGET = Target("spent", "spent", "regression", "log1p", None, 2.0, STD, 1000, 1000)


def settled(sigma, seed=0, rows=20_000, tasks=(SPENT,), targets=(TARGET,)):
    """Losses that have seen residuals of this deviation, in units of the label's own."""
    losses = TaskLosses(tasks, targets=targets)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        residuals = sigma * torch.randn(rows, len(tasks), generator=generator, dtype=torch.float64)
        losses(torch.zeros(rows, len(tasks), dtype=torch.float64), residuals)
    return losses


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.0])
def test_the_loss_is_least_where_the_prediction_is_the_mean(sigma):
    """log E[1 + y] = m + (sigma std)^2 / 2 for a log-normal 1 + y with these logarithms."""
    losses = settled(sigma).eval()
    m = 0.3
    generator = torch.Generator().manual_seed(1)
    labels = m + sigma * torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
    z = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    losses(z.expand(len(labels), 1), labels).sum().backward()
    # The loss is a parabola with curvature 2 in z.
    best = -z.grad.item() / 2
    logarithm = best * STD + TARGET.mean
    expected = (m * STD + TARGET.mean) + (sigma * STD) ** 2 / 2
    assert logarithm == pytest.approx(expected, abs=0.03)
    predicted = decode_outputs(np.array([[best]]), (TARGET,))[0, 0]
    mean = np.expm1(labels.numpy() * STD + TARGET.mean).mean()
    assert predicted == pytest.approx(mean, rel=0.1 if sigma == 1.0 else 0.03)


def test_it_is_the_likelihood_of_the_lognormal_distribution_in_other_units():
    """-log p(y) = (log y - m)^2 / (2 sigma^2) + log sigma + log y + log(2 pi) / 2, with m = log E[y] - sigma^2 / 2."""
    losses = settled(0.6).eval()
    sigma = math.sqrt(2 * losses.spread().item() * STD)
    z, labels = torch.randn(7, 1, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64)
    log_mean, log_y = z * STD + TARGET.mean, labels * STD + TARGET.mean
    distribution = torch.distributions.LogNormal(log_mean - sigma**2 / 2, sigma)
    nll = -distribution.log_prob(log_y.exp())
    rest = math.log(sigma) + log_y + math.log(2 * math.pi) / 2
    expected = ((nll - rest) * 2 * sigma**2 / STD**2).mean()
    assert losses(z, labels).item() == pytest.approx(expected.item(), rel=1e-5)


@given(st.integers(0, 99), st.sampled_from([1, 2, 3, 10]))
def test_the_deviation_is_pooled_over_batches_and_unbiased(seed, rows):
    """Batches of one row say nothing, those of two half of what their rows do."""
    losses, generator = TaskLosses([SPENT], targets=[TARGET]), torch.Generator().manual_seed(seed)
    losses.spread.DECAY = 1.0
    squares, freedom = 0.0, 0
    for _ in range(5):
        z, y = torch.randn(2, rows, 1, generator=generator, dtype=torch.float64)
        y[torch.rand(rows, 1, generator=generator) < 0.3] = NAN
        losses(z, y)
        errors = (z - y)[~y.isnan()]
        if len(errors) > 1:
            squares += (errors.var() * (len(errors) - 1)).item()
            freedom += len(errors) - 1
    expected = STD * squares / freedom / 2 if freedom else 0.0
    assert losses.spread().item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_a_shift_of_all_outputs_is_no_deviation():
    """Else the shift that sigma causes would raise sigma, without end."""
    here, there = TaskLosses([SPENT], targets=[TARGET]), TaskLosses([SPENT], targets=[TARGET])
    z, y = torch.randn(2, 50, 1, dtype=torch.float64)
    here(z, y)
    there(z + 100, y)
    assert here.spread().item() == pytest.approx(there.spread().item(), rel=1e-4)


def test_validation_teaches_it_nothing_and_a_checkpoint_holds_it():
    losses = settled(0.5)
    before = losses.spread().item()
    losses.eval()(torch.zeros(9, 1), 50 * torch.randn(9, 1))
    assert losses.spread().item() == before
    other = TaskLosses([SPENT], targets=[TARGET])
    other.load_state_dict(losses.state_dict())
    assert other.spread().item() == before


@pytest.mark.parametrize("z", [1e4, -1e4])
@pytest.mark.parametrize("y", [0.0, NAN])
def test_extreme_outputs_are_finite(z, y):
    losses = settled(0.5)
    outputs = torch.tensor([[z], [z]], requires_grad=True)
    loss = losses(outputs, torch.tensor([[y], [y]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(outputs.grad).all()
    if y != y:
        assert (loss.item(), outputs.grad.tolist()) == (0, [[0], [0]])


def test_a_binary_parent_and_a_lognormal_child_are_a_zero_inflated_lognormal():
    """Wang et al. 2019, eq. 2-3: the loss of ZILN is the sum of theirs, its mean is their chain product."""
    buyers = Target("buys", "buys", "binary", "none", None, 0.3, 1.0, 1000, 300)
    losses = settled(0.8, tasks=(Task(label="buys"), SPENT), targets=(buyers, TARGET)).eval()
    sigma = math.sqrt(2 * losses.spread().item() * STD)
    spent = torch.tensor([0.0, 12.0, 0.0, 3.0, 700.0], dtype=torch.float64)
    bought = spent > 0
    logits = torch.randn(5, 2, dtype=torch.float64)
    encoded_spent = torch.where(bought, (spent.log1p() - TARGET.mean) / STD, NAN)
    found = losses(logits, torch.stack([bought.double(), encoded_spent], dim=1))

    p = torch.sigmoid(logits[:, 0])
    mu = logits[:, 1] * STD + TARGET.mean - sigma**2 / 2
    by_ziln = -torch.where(
        bought,
        p.log() + torch.distributions.Normal(mu, sigma).log_prob(spent.log1p()),
        (1 - p).log(),
    ).sum()
    constant = 3 * (math.log(sigma) + math.log(2 * math.pi) / 2)
    ours = 5 * found[0] + 3 * found[1] * STD**2 / (2 * sigma**2)
    assert (ours + constant).item() == pytest.approx(by_ziln.item(), rel=1e-5)
    outputs = decode_outputs(logits.numpy(), (buyers, TARGET))
    ziln_mean = p * torch.expm1(mu + sigma**2 / 2)
    assert outputs.prod(axis=1) == pytest.approx(ziln_mean.clamp(min=0).numpy(), rel=1e-5)


def test_a_network_predicts_the_mean_of_a_skewed_label(tmp_path):
    """Seconds that scatter by a factor of e: squared error of logarithms predicts 40 % too little."""

    def scattered(rows, seed):
        noise = np.random.default_rng(seed + 100).normal(size=rows)
        return table_of(rows, seed).with_columns(seconds=pl.col("seconds") * pl.Series(np.exp(noise)))

    calibration = {}
    for name in ("mse", "lognormal"):
        config = config_of(
            tasks={"dwell": {"label": "seconds", "kind": "regression", "transform": "log1p", "loss": name}},
            fit={"epochs": 3},
        )
        encoder, train, valid = encoded(tmp_path / name, config, scattered(6000, 1), scattered(3000, 2))
        result = fit(config, encoder, train, valid, tmp_path / name, Silent())
        network = build_network(config.model, encoder.layout, torch.zeros(1)).eval()
        network.load_state_dict(load_file(tmp_path / name / "model.safetensors"))
        rows = take(valid.arrays, slice(None))
        with torch.inference_mode():
            predicted = decode_outputs(network(to_batch(rows)).double().numpy(), encoder.targets)
        labels = decode_outputs(rows.labels.astype(np.float64), encoder.targets)
        calibration[name] = predicted.sum() / labels.sum()
        # A squared error of logarithms in both cases: the shift to the mean is not held against it.
        assert result.valid["valid/dwell/nmse"] < 0.75
    assert calibration["mse"] < 0.7
    assert 0.88 < calibration["lognormal"] < 1.12
