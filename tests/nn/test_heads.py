"""ESMM's objective and AITM's transfer, recomputed by NumPy from their formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_inputs import randomise
from test_trunks import CLOSE, PLAIN, array, relu, softmax

from mtl_rank.config import Task
from mtl_rank.nn.heads import AITM, ESMM, Relations, Towers, log1mexp
from mtl_rank.training.losses import TaskLosses

NAN = math.nan
BINARY = Task(label="y")
FUNNEL = {"ctr": BINARY, "cvr": Task(label="y", given="ctr"), "repeat": Task(label="y", given="cvr")}
STEPS = {"click": BINARY, "buy": BINARY, "again": BINARY}


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def esmm_of(tasks):
    return ESMM(4, (3,), torch.zeros(len(tasks)), PLAIN, Relations.of(tasks))


@given(st.lists(st.tuples(*[st.floats(-12, 12)] * 3), min_size=1, max_size=6))
def test_esmm_compares_products_along_the_chain(rows):
    logits = torch.tensor(rows, dtype=torch.float64)
    labels = torch.zeros(len(rows), 3, dtype=torch.float64)
    z, _ = esmm_of(FUNNEL).objective(logits, labels)
    p = sigmoid(logits)
    for task in range(3):
        product = p[:, : task + 1].prod(axis=1)
        np.testing.assert_allclose(z[:, task], np.log(product) - np.log1p(-product), rtol=1e-6, atol=1e-6)


def test_esmm_knows_the_label_of_a_product_on_every_row_that_can_know_it():
    labels = torch.tensor(
        [[0, NAN, NAN], [1, 0, NAN], [1, 1, 0], [1, 1, 1], [NAN, NAN, NAN], [1, NAN, NAN], [1, 1, NAN]]
    )
    _, found = esmm_of(FUNNEL).objective(torch.zeros(7, 3), labels)
    expected = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [NAN] * 3, [1, NAN, NAN], [1, 1, NAN]]
    np.testing.assert_array_equal(found, expected)


def test_esmm_has_the_losses_of_the_paper():
    """Binary cross entropy of ctr and of ctcvr, each over all impressions; cvr has none of its own."""
    tasks = {"ctr": BINARY, "cvr": Task(label="y", given="ctr")}
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50, 2, generator=generator, requires_grad=True)
    click = (torch.rand(50, generator=generator) < 0.4).float()
    buy = torch.where(click == 1, (torch.rand(50, generator=generator) < 0.5).float(), NAN)
    losses = TaskLosses(list(tasks.values()))(
        *esmm_of(tasks).objective(logits, torch.stack([click, buy], dim=1))
    )
    p_click, p_buy = sigmoid(logits.detach()).T
    for loss, p, y in ((losses[0], p_click, click), (losses[1], p_click * p_buy, click * buy.nan_to_num())):
        y = y.numpy()
        assert loss.item() == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), rel=1e-5)
    # dL/dz_cvr of one row: the chain rule through p_ctcvr.
    losses[1].backward()
    p, y = p_click * p_buy, (click * buy.nan_to_num()).numpy()
    expected = (p - y) / (p * (1 - p)) * p * (1 - p_buy) / 50
    np.testing.assert_allclose(logits.grad[:, 1], expected, rtol=1e-4, atol=1e-7)


def test_a_value_keeps_its_own_loss_under_esmm():
    tasks = {
        "ctr": BINARY,
        "cvr": Task(label="y", given="ctr"),
        "dwell": Task(label="y", kind="regression", given="ctr"),
    }
    logits, labels = torch.randn(6, 3), torch.tensor([[0, NAN, NAN], [1, 0, 0.3]]).repeat(3, 1)
    z, y = esmm_of(tasks).objective(logits, labels)
    for task in (0, 2):
        torch.testing.assert_close(z[:, task], logits[:, task])
        np.testing.assert_array_equal(y[:, task], labels[:, task])


@pytest.mark.parametrize("extreme", [1e4, -1e4, 30.0, -200.0])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_extreme_products_have_finite_losses_and_gradients(extreme, label):
    logits = torch.tensor([[extreme, extreme, extreme]], requires_grad=True)
    labels = torch.full((1, 3), label)
    z, y = esmm_of(FUNNEL).objective(logits, labels)
    loss = TaskLosses(list(FUNNEL.values()))(z, y)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


@given(st.floats(-50, -1e-6))
def test_log1mexp_is_exact_at_both_ends(x):
    assert log1mexp(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(
        math.log(-math.expm1(x)), rel=1e-9
    )


X = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(8))


def aitm_of(tasks, calibrator=0.6):
    return randomise(AITM(4, (3,), torch.zeros(len(tasks)), PLAIN, Relations.of(tasks), calibrator))


@pytest.mark.parametrize(
    ("tasks", "sources"),
    [
        (STEPS, [0, 1]),
        ({"ctr": BINARY, "cvr": Task(label="y", given="ctr"), "like": Task(label="y", given="ctr")}, [0, 0]),
    ],
)
def test_aitm_attends_to_its_own_vector_and_what_the_step_before_passes_on(tasks, sources):
    head = aitm_of(tasks)
    z = [array(X)[:, t] for t in range(3)]
    for t, source in enumerate(sources, start=1):
        layer = head.information[t - 1][0]
        passed = relu(z[source] @ array(layer.weight)[0] + array(layer.bias)[0, 0])
        transfer = head.transfer[t - 1]
        tokens = [z[t], passed]
        h1, h2, h3 = (
            [token @ array(m.weight).T for token in tokens]
            for m in (transfer.value, transfer.query, transfer.key)
        )
        scores = np.stack([(a * b).sum(axis=1) / np.sqrt(4) for a, b in zip(h2, h3, strict=True)], axis=1)
        weights = softmax(scores)
        z[t] = sum(weights[:, [u]] * h1[u] for u in range(2))
    towers = Towers(4, (3,), torch.zeros(3), PLAIN)
    towers.load_state_dict(
        {k: v for k, v in head.state_dict().items() if k.split(".")[0] in ("hidden", "output")}
    )
    expected = towers(torch.tensor(np.stack(z, axis=1), dtype=torch.float32))
    np.testing.assert_allclose(array(head(X)), array(expected), **CLOSE)


def test_the_calibrator_counts_what_a_later_step_has_above_the_earlier_one():
    logits = torch.tensor([[0.0, 1.0, -1.0], [2.0, 1.0, 3.0]])
    p = sigmoid(logits)
    expected = 0.6 * np.mean([p[0, 1] - p[0, 0], p[1, 2] - p[1, 1]])
    assert aitm_of(STEPS).auxiliary(logits).item() == pytest.approx(expected, rel=1e-5)
    assert aitm_of(STEPS, calibrator=0.0).auxiliary(logits) is None
    # A conditional probability may be larger than its parent's.
    assert aitm_of(FUNNEL).auxiliary(logits) is None


@pytest.mark.parametrize("width", [1, 6])
def test_branch_vectors_join_the_output_as_one_matrix_would(width):
    towers = randomise(Towers(4, (3,), torch.zeros(3), PLAIN, of_branches=width))
    vectors = torch.randn(7, width)
    hidden = array(towers.hidden(X))
    for t in range(3):
        w = np.concatenate([array(towers.output.weight)[t, :, 0], array(towers.of_branches.weight)[t]])
        expected = (
            np.concatenate([hidden[:, t], array(vectors)], axis=1) @ w + array(towers.output.bias)[t, 0]
        )
        np.testing.assert_allclose(array(towers(X, vectors))[:, t], expected, **CLOSE)
