"""Per-task losses against formulas written by hand: masked, a mean over the rows that count."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtl_rank.config import Task
from mtl_rank.training.losses import TaskLosses

NAN = float("nan")
BINARY = Task(label="a")
KINDS = {
    "bce": Task(label="a"),
    "weighted_bce": Task(label="a", loss={"name": "weighted_bce", "w1": 6, "w0": 0.5}),
    "focal": Task(label="a", loss={"name": "focal", "alpha": 0.3, "gamma": 0.5}),
    "mse": Task(label="b", kind="regression"),
    "huber": Task(label="b", kind="regression", loss="huber"),
    "huber_of_3": Task(label="b", kind="regression", loss={"name": "huber", "delta": 3}),
}
BINARY_KINDS = ("bce", "weighted_bce", "focal")


def bce(z, y):
    return -(y * np.log(1 / (1 + np.exp(-z))) + (1 - y) * np.log(1 / (1 + np.exp(z))))


def weighted_bce(z, y):
    """Its odds are w1 / w0 times those that the network predicts."""
    p = 1 / (1 + np.exp(-z) * 0.5 / 6)
    return -(6 * y * np.log(p) + 0.5 * (1 - y) * np.log(1 - p))


def focal(z, y):
    p = 1 / (1 + np.exp(-z))
    return -(0.3 * (1 - p) ** 0.5 * y * np.log(p) + 0.7 * p**0.5 * (1 - y) * np.log(1 - p))


def huber(z, y, delta=1):
    error = abs(z - y)
    return error**2 / 2 if error < delta else delta * (error - delta / 2)


BY_HAND = {
    "bce": bce,
    "weighted_bce": weighted_bce,
    "focal": focal,
    "mse": lambda z, y: (z - y) ** 2,
    "huber": huber,
    "huber_of_3": lambda z, y: huber(z, y, 3),
}


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5))
    rows = draw(st.integers(1, 8))
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(2, rows, len(kinds))) * 3
    for column, kind in enumerate(kinds):
        if kind in BINARY_KINDS:
            labels[:, column] = labels[:, column] > 0
    labels[rng.random(labels.shape) < draw(st.sampled_from([0.0, 0.5, 0.9]))] = np.nan
    return kinds, logits, labels


def test_gradients_agree_with_finite_differences():
    rng = np.random.default_rng(0)
    z, y = torch.tensor(rng.normal(size=(2, 6, len(KINDS))) * 2)
    y[:, : len(BINARY_KINDS)] = (y[:, : len(BINARY_KINDS)] > 0).double()
    y[rng.random(y.shape) < 0.2] = NAN
    losses = TaskLosses([KINDS[kind] for kind in (*BINARY_KINDS, "mse", "huber", "huber_of_3")])
    torch.autograd.gradcheck(lambda logits: losses(logits, y), z.requires_grad_())


@given(tables())
def test_each_loss_is_the_mean_of_its_formula_over_labelled_rows(table):
    kinds, logits, labels = table
    z = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    losses = TaskLosses([KINDS[kind] for kind in kinds])(z, torch.tensor(labels, dtype=torch.float32))
    losses.sum().backward()
    for column, kind in enumerate(kinds):
        rows = ~np.isnan(labels[:, column])
        each = [BY_HAND[kind](a, b) for a, b in zip(logits[rows, column], labels[rows, column], strict=True)]
        assert losses[column].item() == pytest.approx(np.mean(each) if each else 0, rel=1e-4, abs=1e-5)
        gradient = z.grad[:, column].numpy()
        assert (gradient[~rows] == 0).all()
        if kind == "bce" and rows.any():
            p = 1 / (1 + np.exp(-logits[rows, column]))
            assert gradient[rows] == pytest.approx((p - labels[rows, column]) / rows.sum(), abs=1e-5)


@pytest.mark.parametrize(
    "kinds", [["bce"], ["bce", "mse", "huber"], ["mse", "bce"], sorted(KINDS)[::-1], ["focal"]]
)
def test_a_task_without_labels_in_the_batch_has_no_loss_and_no_gradient(kinds):
    logits = torch.randn(4, len(kinds), requires_grad=True)
    labels = torch.ones(4, len(kinds))
    labels[:, 0] = NAN
    losses = TaskLosses([KINDS[kind] for kind in kinds])(logits, labels)
    assert losses[0].item() == 0
    losses.sum().backward()
    assert losses.shape == (len(kinds),)
    assert logits.grad[:, 0].tolist() == [0, 0, 0, 0]
    assert (logits.grad[:, 1:] != 0).any(dim=0).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("z", [1e4, -1e4])
@pytest.mark.parametrize("y", [0.0, 1.0, NAN])
def test_extreme_logits_have_finite_losses_and_gradients(kind, z, y):
    logits = torch.tensor([[z], [0.0]], requires_grad=True)
    loss = TaskLosses([KINDS[kind]])(logits, torch.tensor([[y], [1.0]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    if kind == "bce" and y == y:
        wrong = (z > 0) != (y == 1)
        assert loss.item() == pytest.approx(((1e4 if wrong else 0) + np.log(2)) / 2, rel=1e-6)


def test_rows_that_are_not_labelled_weigh_nothing():
    """The mean is over a task's own rows, not over the batch: a rare task is not diluted."""
    losses = TaskLosses([BINARY, BINARY])
    logits = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    labels = torch.tensor([[1.0, NAN], [1.0, NAN], [1.0, NAN], [1.0, 1.0]])
    together = losses(logits, labels)
    assert together[1].item() == pytest.approx(bce(4.0, 1.0), rel=1e-5)
    assert losses(logits[3:], labels[3:])[1].item() == pytest.approx(together[1].item())


@given(tables(), st.integers(0, 999))
def test_weights_make_it_a_weighted_mean(table, seed):
    kinds, logits, labels = table
    weights = np.random.default_rng(seed).choice([0.0, 0.5, 3.0], len(labels))
    losses = TaskLosses([KINDS[kind] for kind in kinds])(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(weights)
    )
    for column, kind in enumerate(kinds):
        rows = ~np.isnan(labels[:, column]) & (weights > 0)
        each = [BY_HAND[kind](a, b) for a, b in zip(logits[rows, column], labels[rows, column], strict=True)]
        expected = np.average(each, weights=weights[rows]) if each else 0
        assert losses[column].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(tables(), st.integers(0, 999), st.booleans())
def test_over_the_batch_it_is_the_sum_over_labelled_rows_by_what_all_rows_count(table, seed, weighted):
    kinds, logits, labels = table
    weights = np.random.default_rng(seed).choice([0.5, 1.0, 3.0], len(labels)) if weighted else None
    tasks = [KINDS[kind].model_copy(update={"mean_over": "batch"}) for kind in kinds]
    losses = TaskLosses(tasks)(
        torch.tensor(logits), torch.tensor(labels), None if weights is None else torch.tensor(weights)
    )
    counts = np.ones(len(labels)) if weights is None else weights
    for column, kind in enumerate(kinds):
        rows = ~np.isnan(labels[:, column])
        each = [BY_HAND[kind](a, b) for a, b in zip(logits[rows, column], labels[rows, column], strict=True)]
        expected = (np.array(each) * counts[rows]).sum() / counts.sum()
        assert losses[column].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_one_task_over_the_batch_leaves_the_others_as_they_were():
    logits = torch.randn(8, 2)
    labels = torch.tensor([[1.0, NAN]] * 6 + [[0.0, 1.0]] * 2)
    plain = TaskLosses([BINARY, BINARY])(logits, labels)
    rare = TaskLosses([BINARY, BINARY.model_copy(update={"mean_over": "batch"})])(logits, labels)
    assert rare[0].item() == plain[0].item()
    assert rare[1].item() == pytest.approx(plain[1].item() * 2 / 8)
    undefined = torch.full((8, 2), NAN)
    assert TaskLosses([BINARY.model_copy(update={"mean_over": "batch"})] * 2)(logits, undefined).tolist() == [
        0,
        0,
    ]


def test_over_the_batch_with_sampled_negatives_it_is_the_mean_over_the_rows_before_sampling():
    """A negative that was kept of four stands for four in the batch of a purchase given a click."""
    tasks = [BINARY, Task(label="c", given="a", mean_over="batch")]
    logits = torch.tensor([[0.3, 0.7], [0.3, -0.2], [0.1, 0.4], [-1.0, 0.5]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, NAN], [0.0, NAN]], dtype=torch.float64)
    losses = TaskLosses(tasks, sampled=(0, 0.25))(logits, labels)
    assert losses[1].item() == pytest.approx((bce(0.7, 1) + bce(-0.2, 0)) / (1 + 1 + 4 + 4))


def test_a_row_that_counts_twice_is_two_rows():
    logits, labels = torch.randn(4, 2), torch.tensor([[0.0, 1], [1, NAN], [0, 0], [1, 1]])
    losses = TaskLosses([BINARY, BINARY])
    twice = torch.tensor([0, 1, 1, 2, 3])
    weighted = losses(logits, labels, torch.tensor([1.0, 2, 1, 1]))
    assert torch.allclose(weighted, losses(logits[twice], labels[twice]))


@given(
    st.floats(0.01, 1),
    st.lists(st.floats(0.02, 1), min_size=4, max_size=4),
    st.floats(0.01, 0.99),
)
def test_with_sampled_negatives_the_best_logits_are_those_of_all_rows(share, joint, given_rate):
    """A population of (click, like, buy given click), its negatives kept by `share`: at the logits of the whole
    population no task's expected loss has a slope.
    """
    both, click, like, neither = np.array(joint) / sum(joint)
    rows = [  # click, like, buy, frequency among all rows
        (1, 1, 1, both * given_rate),
        (1, 1, 0, both * (1 - given_rate)),
        (1, 0, 1, click * given_rate),
        (1, 0, 0, click * (1 - given_rate)),
        (0, 1, NAN, like),
        (0, 0, NAN, neither),
    ]
    table = torch.tensor(rows, dtype=torch.float64)
    labels, frequency = table[:, :3], table[:, 3]
    kept = torch.where(labels[:, 0] == 0, frequency * share, frequency)
    rates = torch.tensor([both + click, both + like, given_rate], dtype=torch.float64)
    logits = torch.logit(rates).requires_grad_()
    tasks = [BINARY, BINARY, Task(label="c", given="a")]
    losses = TaskLosses(tasks, sampled=(0, share))(logits.expand(len(rows), -1), labels, kept)
    losses.sum().backward()
    assert logits.grad.numpy() == pytest.approx(np.zeros(3), abs=1e-6)
