"""Losses of tasks with more than two classes, beside others and alone, and what a network makes of them."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_task import SCHEMA, config_of, encoded, table_of
from torch.nn import functional as F

from mtl_rank.config import Task
from mtl_rank.data.classes import class_probabilities
from mtl_rank.data.datamodule import to_batch
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.data.labels import Target
from mtl_rank.nn.columns import Columns
from mtl_rank.nn.zoo import ZOO, build_network
from mtl_rank.predict import Predictor
from mtl_rank.progress import Silent
from mtl_rank.runs import create_run
from mtl_rank.training.fit import fit, prior_logits
from mtl_rank.training.losses import TaskLosses

CTR = Task(label="clicked")
STARS = Task(label="stars", kind="ordinal", classes=(1, 2, 3, 4))
REASON = Task(label="reason", kind="multiclass", classes=("a", "b", "c"))
DWELL = Task(label="seconds", kind="regression")
MIXED = [REASON, CTR, STARS, DWELL]
# reason 0 4 5, ctr 1, stars 2 6 7, dwell 3
COLUMNS = Columns.of(MIXED)


def target(task, rates):
    return Target("t", task.label, task.kind, "none", None, 0.0, 1.0, 100, 50, task.classes, tuple(rates))


def mixed_batch(rows=40, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, COLUMNS.total)) * 2
    cumulative = list(COLUMNS.of_task[2])
    logits[:, cumulative] = -np.sort(-logits[:, cumulative], axis=1)
    labels = np.column_stack(
        [rng.integers(0, 3, rows), rng.random(rows) < 0.4, rng.integers(0, 4, rows), rng.normal(size=rows)]
    ).astype(float)
    labels[rng.random((rows, 4)) < 0.2] = math.nan
    return torch.tensor(logits, dtype=dtype), torch.tensor(labels, dtype=dtype)


def test_columns_of_further_classes_stand_behind_those_of_all_tasks():
    assert COLUMNS.of_task == ((0, 4, 5), (1,), (2, 6, 7), (3,))
    assert (COLUMNS.total, COLUMNS.towers, COLUMNS.cut) == (8, 6, (2,))
    assert COLUMNS.of_towers == ((0, 4, 5), (1,), (2,), (3,))
    assert Columns.of([CTR, DWELL]) == Columns.plain(2)


def test_losses_equal_their_formulas_on_the_rows_where_there_is_a_label():
    logits, labels = mixed_batch()
    weights = torch.rand(len(logits), dtype=torch.float64)
    for w in (None, weights):
        found = TaskLosses(MIXED)(logits, labels, w)
        mass = np.ones(len(logits)) if w is None else w.numpy()
        z, y = logits.numpy(), labels.numpy()
        softmax = np.exp(z[:, [0, 4, 5]]) / np.exp(z[:, [0, 4, 5]]).sum(axis=1, keepdims=True)
        above = np.column_stack([np.ones(len(z)), 1 / (1 + np.exp(-z[:, [2, 6, 7]])), np.zeros(len(z))])
        for task, p in ((0, softmax), (2, above[:, :-1] - above[:, 1:])):
            rows = ~np.isnan(y[:, task])
            right = p[rows, y[rows, task].astype(int)]
            assert found[task].item() == pytest.approx(-np.average(np.log(right), weights=mass[rows]))
    plain = TaskLosses([CTR, DWELL])(logits[:, [1, 3]], labels[:, [1, 3]])
    torch.testing.assert_close(TaskLosses(MIXED)(logits, labels)[[1, 3]], plain)


def test_the_softmax_loss_is_that_of_torch():
    logits, labels = torch.randn(30, 3), torch.randint(0, 3, (30, 1)).float()
    torch.testing.assert_close(
        TaskLosses([REASON])(logits, labels)[0], F.cross_entropy(logits, labels[:, 0].long())
    )


def test_gradients_agree_with_finite_differences():
    logits, labels = mixed_batch(rows=6)
    # Cumulative logits that are equal have no gradient: they never are, see the next test but two.
    torch.autograd.gradcheck(lambda z: TaskLosses(MIXED)(z, labels), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_have_finite_losses_and_gradients(dtype):
    labels = torch.tensor([[c, 1.0, s, 0.0] for c in range(3) for s in range(4)], dtype=dtype)
    for size in (1e4, -1e4):
        logits = torch.full((12, COLUMNS.total), size, dtype=dtype)
        logits[:, 6], logits[:, 7] = size - 0.5, size - 1.5
        logits[:, 4] = -size
        logits.requires_grad_()
        losses = TaskLosses([REASON, CTR, STARS, CTR])(logits, labels)
        losses.sum().backward()
        assert losses.isfinite().all()
        assert logits.grad.isfinite().all()


def test_a_batch_without_a_label_has_no_loss_and_no_gradient():
    logits, labels = mixed_batch()
    labels[:, [0, 2]] = math.nan
    logits.requires_grad_()
    losses = TaskLosses(MIXED)(logits, labels)
    assert losses[[0, 2]].tolist() == [0, 0]
    losses[[0, 2]].sum().backward()
    assert not logits.grad.any()


RATES = st.lists(st.integers(1, 50), min_size=4, max_size=4).map(lambda n: np.array(n) / sum(n))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@given(rates=RATES)
def test_the_best_constant_prediction_are_the_rates_and_there_training_starts(smoothing, rates):
    multiclass = Task(label="y", kind="multiclass", classes=("a", "b", "c", "d"))
    for task, loss in ((multiclass, "cross_entropy"), (STARS, "cumulative")):
        task = task.model_validate({**task.model_dump(), "loss": {"name": loss, "smoothing": smoothing}})
        targets = (target(task, rates),)
        start = prior_logits(targets).double()
        np.testing.assert_allclose(
            class_probabilities(task.kind, start.numpy()[None])[0], rates, rtol=1e-4, atol=1e-6
        )
        start.requires_grad_()
        labels = torch.arange(4, dtype=torch.float64).unsqueeze(1)
        losses = TaskLosses([task], targets=targets)
        losses(start.expand(4, -1), labels, torch.tensor(rates)).sum().backward()
        assert start.grad.abs().max().item() < 1e-5


def test_smoothing_moves_a_label_towards_the_rates():
    rates = (0.5, 0.2, 0.3)
    task = Task(
        label="y", kind="multiclass", classes=(0, 1, 2), loss={"name": "cross_entropy", "smoothing": 0.1}
    )
    logits, labels = torch.randn(20, 3), torch.randint(0, 3, (20, 1)).float()
    soft = 0.9 * F.one_hot(labels[:, 0].long(), 3) + 0.1 * torch.tensor(rates)
    found = TaskLosses([task], targets=(target(task, rates),))(logits, labels)
    torch.testing.assert_close(found[0], F.cross_entropy(logits, soft))


TASKS = {
    "reason": {"label": "reason", "kind": "multiclass", "classes": ["cheap", "dear", "other"]},
    "ctr": {"label": "clicked"},
    "stars": {"label": "stars", "kind": "ordinal", "classes": [1, 2, 3, 5], "given": "ctr"},
    "cvr": {"label": "bought", "given": "ctr"},
}


def with_classes(rows, seed):
    """Stars rise as the price falls; the reason is the price, or nothing."""
    table = table_of(rows, seed)
    rng = np.random.default_rng(seed + 100)
    price = pl.col("price").fill_nan(1.0)
    noise = pl.Series(rng.normal(size=rows) * 0.3)
    stars = -(price.log()) + noise
    return table.with_columns(
        stars=pl.when(stars < -1).then(1).when(stars < 0).then(2).when(stars < 1).then(3).otherwise(5),
        reason=pl.when(pl.Series(rng.random(rows) < 0.2))
        .then(pl.lit("other"))
        .when(price < 1)
        .then(pl.lit("cheap"))
        .otherwise(pl.lit("dear")),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    config = config_of(tasks=TASKS)
    tables = with_classes(3000, 1), with_classes(800, 2)
    return encoded(tmp_path_factory.mktemp("classes"), config, *tables)


def test_classes_are_learned_beside_the_other_tasks(data, tmp_path):
    config = config_of(tasks=TASKS, model={"tower_layers": [16]}, fit={"epochs": 5})
    encoder, train, valid = data
    found = fit(config, encoder, train, valid, tmp_path, Silent()).valid
    # A fifth of the reasons is drawn at random.
    assert 0.72 < found["valid/reason/accuracy"] < 0.84
    assert found["valid/reason/ne"] < 0.75
    assert found["valid/stars/spearman"] > 0.75
    assert found["valid/stars/kappa"] > 0.6
    assert found["valid/ctr/auc"] > 0.8
    names = ("reason", "ctr", "stars", "cvr")
    assert found["valid/ne"] == pytest.approx(np.mean([found[f"valid/{name}/ne"] for name in names]))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_model_has_logits_for_every_class(data, tmp_path, name):
    model = {"name": name, "bottom_layers": [8], "tower_layers": [4], "history": {"heads": 2}}
    model |= {"fields": {"embeddings": "independent", "dim": 4}}
    config = config_of(
        tasks=TASKS, model=model, fit={"epochs": 1, "batch_size": 512}, weighting={"method": "uncertainty"}
    )
    encoder, train, valid = data
    found = fit(config, encoder, train, valid, tmp_path, Silent()).valid
    assert all(math.isfinite(value) for value in found.values())
    assert load_file(tmp_path / "model.safetensors")["heads.cut_points.log_distances"].shape == (2,)


def test_whatever_the_weights_cumulative_logits_fall(data):
    config = config_of(tasks=TASKS)
    encoder, train, _ = data
    columns = Columns.of(encoder.targets)
    network = build_network(config.model, encoder.layout, torch.zeros(columns.total), config.tasks)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=2)
        logits = network(to_batch(next(iter(train.slices(500)))))
    assert logits.shape == (500, columns.total)
    assert (logits[:, list(columns.of_task[2])].diff(dim=1) < 0).all()


@pytest.fixture
def predictor(tmp_path):
    config = config_of(tasks=TASKS)
    encoder = fit_encoder([with_classes(500, 1)], SCHEMA, config.tasks, config.model.dim)
    with create_run(tmp_path, config) as run:
        encoder.save(run.encoder_folder)
    torch.manual_seed(3)
    network = build_network(config.model, encoder.layout, prior_logits(encoder.targets), config.tasks)
    save_file(network.state_dict(), run.weights)
    return Predictor.load(run)


def test_a_run_predicts_a_probability_per_class_and_the_expected_class(predictor):
    table = with_classes(5000, 9).drop("clicked", "bought", "seconds", "stars", "reason")
    found = predictor.predict(table)
    assert list(found) == predictor.outputs
    assert predictor.outputs == [
        *("reason_cheap", "reason_dear", "reason_other", "ctr"),
        *("stars", "stars_1", "stars_2", "stars_3", "stars_5", "cvr", "ctcvr"),
    ]
    for columns in (["reason_cheap", "reason_dear", "reason_other"], [f"stars_{k}" for k in (1, 2, 3, 5)]):
        total = sum(found[name] for name in columns)
        np.testing.assert_allclose(total, 1, rtol=1e-12)
        assert all((found[name] > 0).all() for name in columns)
    expected = sum(k * found[f"stars_{k}"] for k in (1, 2, 3, 5))
    np.testing.assert_allclose(found["stars"], expected, rtol=1e-12)
    parts = [predictor.predict(table[a:b]) for a, b in ((0, 17), (17, 4200), (4200, 5000))]
    for name, values in found.items():
        assert np.concatenate([part[name] for part in parts]).tobytes() == values.tobytes()
    assert {name: len(values) for name, values in predictor.predict(table.head(0)).items()} == dict.fromkeys(
        found, 0
    )
