"""What weighted bce, focal loss and label smoothing teach a network: where their minimum is, and the chosen weights."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from small_task import config_of, encoded, table_of

from mtl_rank.config import Task
from mtl_rank.data.labels import Target
from mtl_rank.progress import Silent
from mtl_rank.training.fit import fit
from mtl_rank.training.losses import TaskLosses, loss_of


def target(rate):
    return Target("ctr", "clicked", "binary", "none", None, rate, 1.0, 1000, round(1000 * rate))


def task(**loss):
    return Task(label="clicked", loss=loss)


def slope_at(losses, rate, logit):
    """d loss / d logit of one logit for all rows, `rate` of them positive."""
    z = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    weights = torch.tensor([rate, 1 - rate], dtype=torch.float64)
    losses(z.expand(2, 1), labels, weights).sum().backward()
    return z.grad.item()


LOSSES_AT_THE_RATE = [
    {"name": "bce"},
    {"name": "bce", "smoothing": 0.3},
    {"name": "weighted_bce", "w1": 20.0},
    {"name": "weighted_bce", "w0": 0.1, "smoothing": 0.1},
    {"name": "weighted_bce", "balanced": True},
]


@pytest.mark.parametrize("loss", LOSSES_AT_THE_RATE, ids=str)
@given(rate=st.floats(0.002, 0.998))
def test_the_best_constant_prediction_is_the_rate(loss, rate):
    """Weights and smoothing change what is learned of single rows, not the mean: predictions stay calibrated."""
    losses = TaskLosses([task(**loss)], targets=[target(rate)])
    logit = math.log(rate / (1 - rate))
    assert slope_at(losses, rate, logit) == pytest.approx(0, abs=1e-5)
    assert slope_at(losses, rate, logit - 0.5) < 0 < slope_at(losses, rate, logit + 0.5)


def test_the_minimum_of_focal_loss_is_not_the_rate():
    """Why the documentation says so: at gamma 2 a rate of 5 % is over-predicted."""
    losses = TaskLosses([task(name="focal", alpha=0.5, gamma=2)])
    assert slope_at(losses, 0.05, math.log(0.05 / 0.95)) < -1e-3


def test_focal_loss_without_focus_is_half_of_bce():
    logits, labels = torch.randn(50, 1), (torch.rand(50, 1) < 0.3).float()
    plain = TaskLosses([task(name="bce")])(logits, labels)
    focal = TaskLosses([task(name="focal", alpha=0.5, gamma=0)])(logits, labels)
    torch.testing.assert_close(focal, plain / 2)


def test_weighted_bce_is_the_weighted_log_loss_of_sklearn():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=200), rng.random(200) < 0.2
    losses = TaskLosses([task(name="weighted_bce", w1=5, w0=0.5)])
    found = losses(torch.tensor(z[:, None]), torch.tensor(y[:, None], dtype=torch.float64)).item()
    weights = np.where(y, 5, 0.5)
    p = 1 / (1 + np.exp(-z) / 10)
    assert found * 200 == pytest.approx(log_loss(y, p, sample_weight=weights, normalize=False), rel=1e-6)


def test_balanced_weights_are_those_of_sklearn():
    labels = np.array([1] * 30 + [0] * 970)
    loss = loss_of(task(name="weighted_bce", balanced=True), target(0.03))
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert [loss.w0, loss.w1] == pytest.approx(expected)


def test_a_linear_model_learns_that_of_sklearn_but_for_the_intercept():
    """The very coefficients of a class-weighted logistic regression, with the odds put right."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 3))
    y = rng.random(4000) < 1 / (1 + np.exp(3 - x @ [1.0, -0.5, 0.2]))
    expected = LogisticRegression(C=np.inf, class_weight={1: 8, 0: 0.5}, tol=1e-10).fit(x, y)
    losses = TaskLosses([task(name="weighted_bce", w1=8, w0=0.5)])
    model = torch.nn.Linear(3, 1).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    inputs, labels = torch.tensor(x), torch.tensor(y[:, None], dtype=torch.float64)

    def closure():
        optimizer.zero_grad()
        total = losses(model(inputs), labels).sum()
        total.backward()
        return total

    optimizer.step(closure)
    assert model.weight.detach().numpy()[0] == pytest.approx(expected.coef_[0], abs=1e-4)
    assert model.bias.item() == pytest.approx(expected.intercept_[0] - math.log(16), abs=1e-4)


def test_smoothing_moves_each_label_towards_the_rate():
    losses = TaskLosses([task(name="bce", smoothing=0.2)], targets=[target(0.05)])
    z = torch.tensor([[2.0], [-1.0]])
    p = torch.sigmoid(z)[:, 0]
    soft = torch.tensor([0.8 + 0.2 * 0.05, 0.2 * 0.05])
    expected = -(soft * p.log() + (1 - soft) * (1 - p).log()).mean()
    torch.testing.assert_close(losses(z, torch.tensor([[1.0], [0.0]]))[0], expected)


def test_each_task_has_its_own_loss_and_smoothing():
    tasks = [
        task(name="bce", smoothing=0.2),
        task(name="weighted_bce", w1=3),
        Task(label="b"),
        task(name="focal"),
    ]
    targets = [target(rate) for rate in (0.05, 0.5, 0.1, 0.2)]
    logits, labels = torch.randn(9, 4), (torch.rand(9, 4) < 0.4).float()
    together = TaskLosses(tasks, targets=targets)(logits, labels)
    alone = [
        TaskLosses([tasks[i]], targets=[targets[i]])(logits[:, [i]], labels[:, [i]])[0] for i in range(4)
    ]
    torch.testing.assert_close(together, torch.stack(alone))


def test_with_sampled_negatives_weights_of_classes_still_predict_the_rate():
    losses = TaskLosses([task(name="weighted_bce", w1=4)], sampled=(0, 0.1))
    rate = 0.02
    kept = rate / (rate + 0.1 * (1 - rate))
    assert slope_at(losses, kept, math.log(rate / (1 - rate))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        {"name": "weighted_bce", "balanced": True},
        {"name": "weighted_bce", "w1": 9},
        {"name": "bce", "smoothing": 0.1},
    ],
    ids=str,
)
def test_a_network_is_calibrated_under_weights_and_smoothing(tmp_path, loss):
    """A twelfth of the rows is positive; the plain formula would predict several times too much."""
    rare = [
        table_of(rows, seed).with_columns(clicked=pl.col("clicked") * (pl.int_range(pl.len()) % 6 == 0))
        for rows, seed in ((9_000, 1), (3_000, 2))
    ]
    config = config_of(tasks={"ctr": {"label": "clicked", "loss": loss}})
    encoder, train, valid = encoded(tmp_path, config, *rare)
    result = fit(config, encoder, train, valid, tmp_path, Silent())
    assert 0.8 < result.valid["valid/ctr/calibration"] < 1.2
